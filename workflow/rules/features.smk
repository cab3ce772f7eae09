# Features: blocks of cached representations, one job each, and the record that makes one cache of them.


from pipeline_lib.config.features import EVALUATION_VIEWS

# Like the views of an evaluated split, those of the ablations are extracted together, each image decoded once.
ABLATION_VIEWS = specs.joint_views(CONFIG)


rule features:
    input:
        index="<results>/datasets/{dataset}/index.parquet",
        dataset="<results>/datasets/{dataset}/manifest.json",
        backbone="<results>/backbones/{backbone}/manifest.json",
    output:
        "<results>/features/{backbone}/{dataset}/{split}/{view}/blocks/samples-{start}-{stop}_epochs-{first}-{last}/manifest.json",
    log:
        "<logs>/features/{backbone}/{dataset}/{split}/{view}/samples-{start}-{stop}_epochs-{first}-{last}.log",
    benchmark:
        "<benchmarks>/features/{backbone}/{dataset}/{split}/{view}/samples-{start}-{stop}_epochs-{first}-{last}.tsv"
    wildcard_constraints:
        view=f"(?!({names_pattern([*EVALUATION_VIEWS, *ABLATION_VIEWS])})/)[^/]+",
        start=r"\d+",
        stop=r"\d+",
        first=r"\d+",
        last=r"\d+",
    conda:
        "../../envs/pipeline.yaml"
    threads: CONFIG.features.threads
    resources:
        gpu=gpu(CONFIG.features.device),
        # Not a parameter: the number of workers must not make anything stale, since it changes no result.
        workers=CONFIG.features.workers,
        cpus_per_task=CONFIG.features.workers + CONFIG.features.threads,
        mem_mb=larger_each_attempt(32_000),
        runtime=larger_each_attempt(4 * 60),
    params:
        spec=lambda wildcards: block_spec(wildcards, wildcards.view, wildcards.first, wildcards.last),
        code=features_code,
    shell:
        "python -m pipeline_lib features --spec {params.spec:q} --dataset $(dirname {input.dataset:q}) "
        "--backbone $(dirname {input.backbone:q}) --workers {resources.workers} --output $(dirname {output:q}) "
        "2>&1 | tee {log:q}"


use rule features as evaluation_features with:
    output:
        block_outputs(EVALUATION_VIEWS),
    log:
        "<logs>/features/{backbone}/{dataset}/{split}/evaluation/samples-{start}-{stop}.log",
    benchmark:
        "<benchmarks>/features/{backbone}/{dataset}/{split}/evaluation/samples-{start}-{stop}.tsv"
    wildcard_constraints:
        start=r"\d+",
        stop=r"\d+",
    params:
        spec=lambda wildcards: block_specs(wildcards, EVALUATION_VIEWS),
        code=features_code,


if ABLATION_VIEWS:

    use rule features as ablation_features with:
        output:
            block_outputs(ABLATION_VIEWS),
        log:
            "<logs>/features/{backbone}/{dataset}/{split}/ablations/samples-{start}-{stop}.log",
        benchmark:
            "<benchmarks>/features/{backbone}/{dataset}/{split}/ablations/samples-{start}-{stop}.tsv"
        wildcard_constraints:
            start=r"\d+",
            stop=r"\d+",
        params:
            spec=lambda wildcards: block_specs(wildcards, ABLATION_VIEWS),
            code=features_code,


rule cache:
    input:
        dataset="<results>/datasets/{dataset}/manifest.json",
        blocks=lambda wildcards: block_manifests(**wildcards),
    output:
        "<results>/features/{backbone}/{dataset}/{split}/{view}/cache/manifest.json",
    log:
        "<logs>/features/{backbone}/{dataset}/{split}/{view}/cache.log",
    benchmark:
        "<benchmarks>/features/{backbone}/{dataset}/{split}/{view}/cache.tsv"
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        spec=lambda wildcards: spec(
            specs.cache_spec, wildcards.backbone, wildcards.dataset, wildcards.split, wildcards.view
        ),
        code=code_digest("pipeline_lib.stages.cache"),
    shell:
        "python -m pipeline_lib cache --spec {params.spec:q} --dataset $(dirname {input.dataset:q}) "
        "--view $(dirname $(dirname {output:q})) 2>&1 | tee {log:q}"
