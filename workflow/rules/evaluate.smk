# Evaluation: per-sample scores and tidy metrics of one dataset, then one table of all metrics.


rule baselines:
    input:
        dataset="<results>/datasets/{dataset}/manifest.json",
        eval="<results>/features/{backbone}/{dataset}/{split}/eval/cache/manifest.json",
        crop="<results>/features/{backbone}/{dataset}/{split}/centre_crop/cache/manifest.json",
        neighbours="<results>/neighbours/{backbone}/{dataset}/{split}/manifest.json",
        upstream=lambda wildcards: upstream_evaluation(wildcards, "baselines"),
    output:
        manifest="<results>/evaluation/{backbone}/baselines/{dataset}/{split}/manifest.json",
        metrics="<results>/evaluation/{backbone}/baselines/{dataset}/{split}/metrics.csv",
        scores="<results>/evaluation/{backbone}/baselines/{dataset}/{split}/scores.parquet",
    log:
        "<logs>/evaluation/{backbone}/baselines/{dataset}/{split}.log",
    benchmark:
        "<benchmarks>/evaluation/{backbone}/baselines/{dataset}/{split}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    resources:
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(4 * 60),
    params:
        spec=lambda wildcards: spec(specs.evaluation_spec, wildcards.backbone, wildcards.dataset, wildcards.split, None),
        code=code_digest("pipeline_lib.stages.baselines"),
        upstream=lambda wildcards: upstream_argument(wildcards, "baselines"),
    shell:
        "python -m pipeline_lib baselines --spec {params.spec:q} --dataset $(dirname {input.dataset:q}) "
        "--features $(dirname $(dirname $(dirname {input.eval:q}))) --neighbours $(dirname {input.neighbours:q}) "
        "{params.upstream} --output $(dirname {output.manifest:q}) 2>&1 | tee {log:q}"


rule evaluate:
    input:
        eval="<results>/features/{backbone}/{dataset}/{split}/eval/cache/manifest.json",
        crop="<results>/features/{backbone}/{dataset}/{split}/centre_crop/cache/manifest.json",
        baselines="<results>/evaluation/{backbone}/baselines/{dataset}/{split}/manifest.json",
        neighbours="<results>/neighbours/{backbone}/{dataset}/{split}/manifest.json",
        heads=expand("<results>/heads/{{backbone}}/{{variant}}/seed{seed}/manifest.json", seed=CONFIG.seeds),
        upstream=lambda wildcards: upstream_evaluation(wildcards, f"heads/{wildcards.variant}"),
    output:
        manifest="<results>/evaluation/{backbone}/heads/{variant}/{dataset}/{split}/manifest.json",
        metrics="<results>/evaluation/{backbone}/heads/{variant}/{dataset}/{split}/metrics.csv",
        scores="<results>/evaluation/{backbone}/heads/{variant}/{dataset}/{split}/scores.parquet",
    log:
        "<logs>/evaluation/{backbone}/heads/{variant}/{dataset}/{split}.log",
    benchmark:
        "<benchmarks>/evaluation/{backbone}/heads/{variant}/{dataset}/{split}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    resources:
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(4 * 60),
    params:
        spec=lambda wildcards: spec(
            specs.evaluation_spec, wildcards.backbone, wildcards.dataset, wildcards.split, wildcards.variant
        ),
        code=code_digest("pipeline_lib.stages.evaluate_heads"),
        upstream=lambda wildcards: upstream_argument(wildcards, f"heads/{wildcards.variant}"),
        heads=heads_argument,
    shell:
        "python -m pipeline_lib evaluate_heads --spec {params.spec:q} "
        "--features $(dirname $(dirname $(dirname {input.eval:q}))) --baselines $(dirname {input.baselines:q}) "
        "--neighbours $(dirname {input.neighbours:q}) "
        "--heads {params.heads} {params.upstream} --output $(dirname {output.manifest:q}) 2>&1 | tee {log:q}"


if CONFIG.ablations:

    rule evaluate_ablations:
        input:
            eval="<results>/features/{backbone}/{dataset}/{split}/eval/cache/manifest.json",
            crop="<results>/features/{backbone}/{dataset}/{split}/centre_crop/cache/manifest.json",
            baselines="<results>/evaluation/{backbone}/baselines/{dataset}/{split}/manifest.json",
            heads=expand(
                "<results>/heads/{{backbone}}/{variant}/seed{seed}/manifest.json",
                variant=CONFIG.ablations.variants,
                seed=CONFIG.seeds,
            ),
        output:
            expand(
                "<results>/evaluation/{{backbone}}/heads/{variant}/{{dataset}}/{{split}}/{file}",
                variant=CONFIG.ablations.variants,
                file=["manifest.json", "metrics.csv", "scores.parquet"],
            ),
        log:
            "<logs>/evaluation/{backbone}/ablations/{dataset}/{split}.log",
        benchmark:
            "<benchmarks>/evaluation/{backbone}/ablations/{dataset}/{split}.tsv"
        wildcard_constraints:
            backbone=names_pattern(CONFIG.ablations.backbones),
        conda:
            "../../envs/pipeline.yaml"
        resources:
            mem_mb=larger_each_attempt(16_000),
            runtime=larger_each_attempt(4 * 60),
        params:
            spec=lambda wildcards: spec(
                specs.ablation_evaluations_spec, wildcards.backbone, wildcards.dataset, wildcards.split
            ),
            code=code_digest("pipeline_lib.stages.evaluate_ablations"),
            heads=lambda wildcards, input: Path(input.heads[0]).parents[2],
            evaluations=lambda wildcards, output: Path(output[0]).parents[3],
        shell:
            "python -m pipeline_lib evaluate_ablations --spec {params.spec:q} "
            "--features $(dirname $(dirname $(dirname {input.eval:q}))) --baselines $(dirname {input.baselines:q}) "
            "--heads {params.heads:q} --output {params.evaluations:q} "
            "2>&1 | tee {log:q}"


# Every artefact with metric rows.
MEASURED = [
    *expand(
        "<results>/evaluation/{backbone}/{method}/{set.dataset}/{set.split}/manifest.json",
        backbone=CONFIG.backbones,
        method=["baselines", *(f"heads/{variant}" for variant in CONFIG.variants)],
        set=EVALUATION_SETS,
    ),
    *expand(
        "<results>/evaluation/{backbone}/baselines/{set.dataset}/{set.split}/manifest.json",
        backbone=CONFIG.benchmark_backbones,
        set=EVALUATION_SETS,
    ),
    *expand(
        "<results>/evaluation/{backbone}/heads/{variant}/{set.dataset}/{set.split}/manifest.json",
        backbone=CONFIG.ablations.backbones if CONFIG.ablations else [],
        variant=CONFIG.ablations.variants if CONFIG.ablations else [],
        set=specs.averaged_sets(CONFIG),
    ),
    *expand(
        "<results>/safe_retrieval/{backbone}/{variant}/{set.dataset}/{set.split}/manifest.json",
        backbone=CONFIG.backbones,
        variant=FIRST_VARIANT,
        set=EVALUATION_SETS,
    ),
    *expand(
        "<results>/deteriorations/{backbone}/{variant}/{set.dataset}/{set.split}/manifest.json",
        backbone=FIRST_BACKBONE,
        variant=FIRST_VARIANT,
        set=specs.deteriorated_sets(CONFIG),
    ),
]


rule metrics:
    input:
        MEASURED,
    output:
        report(
            "<results>/metrics.csv",
            category="Tables",
            caption="../report/metrics.rst",
            labels={"table": "every number"},
        ),
    log:
        "<logs>/metrics.log",
    benchmark:
        "<benchmarks>/metrics.tsv"
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        code=code_digest("pipeline_lib.stages.metrics"),
    shell:
        "python -m pipeline_lib metrics --evaluations $(dirname {input:q}) --output {output:q} 2>&1 | tee {log:q}"


rule provenance:
    input:
        MEASURED,
    output:
        artefacts=report(
            "<results>/provenance/artefacts.csv",
            category="Provenance",
            caption="../report/artefacts.rst",
            labels={"table": "artefacts"},
        ),
        software=report(
            "<results>/provenance/software.csv",
            category="Provenance",
            caption="../report/software.rst",
            labels={"table": "software"},
        ),
    log:
        "<logs>/provenance.log",
    benchmark:
        "<benchmarks>/provenance.tsv"
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        code=code_digest("pipeline_lib.stages.provenance"),
        results=lambda wildcards, output: Path(output.artefacts).parents[1],
    shell:
        "python -m pipeline_lib provenance --results {params.results:q} --artefacts $(dirname {input:q}) "
        "--artefacts-out {output.artefacts:q} --software-out {output.software:q} 2>&1 | tee {log:q}"
