# Features: blocks of cached representations, one job each, and the record that makes one cache of them.

from pipeline_lib.features.blocks import block_name, block_ranges

VIEW = "<results>/features/{backbone}/{dataset}/{split}/{view}"


rule features:
    input:
        index="<results>/datasets/{dataset}/index.parquet",
        dataset="<results>/datasets/{dataset}/manifest.json",
        backbone="<results>/backbones/{backbone}/manifest.json",
    output:
        VIEW + "/blocks/samples-{start}-{stop}_epochs-{first}-{last}/manifest.json",
    log:
        "<logs>/features/{backbone}/{dataset}/{split}/{view}/samples-{start}-{stop}_epochs-{first}-{last}.log",
    benchmark:
        "<benchmarks>/features/{backbone}/{dataset}/{split}/{view}/samples-{start}-{stop}_epochs-{first}-{last}.tsv"
    wildcard_constraints:
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
    params:
        spec=lambda wildcards: spec(
            specs.features_spec,
            wildcards.backbone,
            wildcards.dataset,
            wildcards.split,
            wildcards.view,
            samples=[int(wildcards.start), int(wildcards.stop)],
            epochs=[int(wildcards.first), int(wildcards.last)],
        ),
        code=lambda wildcards: code_digest(
            "pipeline_lib.stages.features",
            kind("datasets", wildcards.dataset),
            kind("backbones", wildcards.backbone),
        ),
    shell:
        "python -m pipeline_lib features --spec {params.spec:q} --dataset $(dirname {input.dataset:q}) "
        "--backbone $(dirname {input.backbone:q}) --workers {resources.workers} --output $(dirname {output:q}) "
        "2>&1 | tee {log:q}"


rule cache:
    input:
        dataset="<results>/datasets/{dataset}/manifest.json",
        blocks=lambda wildcards: block_manifests(**wildcards),
    output:
        VIEW + "/cache/manifest.json",
    log:
        "<logs>/features/{backbone}/{dataset}/{split}/{view}/cache.log",
    benchmark:
        "<benchmarks>/features/{backbone}/{dataset}/{split}/{view}/cache.tsv"
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


def block_manifests(backbone, dataset, split, view):
    """Return the manifests of all blocks of a view."""
    samples = block_ranges(split_size(dataset, split), CONFIG.features.block_samples)
    epochs = block_ranges(specs.view_epochs(CONFIG, view), CONFIG.features.block_epochs)
    folder = f"{RESULTS}/features/{backbone}/{dataset}/{split}/{view}/blocks"
    return [f"{folder}/{block_name(s, e)}/manifest.json" for e in epochs for s in samples]
