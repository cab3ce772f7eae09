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
    params:
        spec=lambda wildcards: spec(
            specs.evaluation_spec, wildcards.backbone, wildcards.dataset, wildcards.split, wildcards.variant
        ),
        code=code_digest("pipeline_lib.stages.evaluate_heads"),
        upstream=lambda wildcards: upstream_argument(wildcards, f"heads/{wildcards.variant}"),
        heads=lambda wildcards: " ".join(
            f"{seed}={RESULTS}/heads/{wildcards.backbone}/{wildcards.variant}/seed{seed}" for seed in CONFIG.seeds
        ),
    shell:
        "python -m pipeline_lib evaluate_heads --spec {params.spec:q} "
        "--features $(dirname $(dirname $(dirname {input.eval:q}))) --baselines $(dirname {input.baselines:q}) "
        "--heads {params.heads} {params.upstream} --output $(dirname {output.manifest:q}) 2>&1 | tee {log:q}"


rule metrics:
    input:
        expand(
            "<results>/evaluation/{backbone}/{method}/{set.dataset}/{set.split}/manifest.json",
            backbone=CONFIG.backbones,
            method=["baselines", *(f"heads/{variant}" for variant in CONFIG.variants)],
            set=EVALUATION_SETS,
        ),
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
    conda:
        "../../envs/pipeline.yaml"
    params:
        code=code_digest("pipeline_lib.stages.metrics"),
    shell:
        "python -m pipeline_lib metrics --evaluations $(dirname {input:q}) --output {output:q} 2>&1 | tee {log:q}"
