# Analyses of the first variant's uncertainties: safe retrieval, deteriorated images, maps of the representations.
# Calibration is made when it is asked for, of any backbone, variant and set.


rule safe_retrieval:
    input:
        eval="<results>/features/{backbone}/{dataset}/{split}/eval/cache/manifest.json",
        baselines="<results>/evaluation/{backbone}/baselines/{dataset}/{split}/manifest.json",
        scores="<results>/evaluation/{backbone}/heads/{variant}/{dataset}/{split}/manifest.json",
        neighbours="<results>/neighbours/{backbone}/{dataset}/{split}/manifest.json",
    output:
        manifest="<results>/safe_retrieval/{backbone}/{variant}/{dataset}/{split}/manifest.json",
        metrics="<results>/safe_retrieval/{backbone}/{variant}/{dataset}/{split}/metrics.csv",
        curves="<results>/safe_retrieval/{backbone}/{variant}/{dataset}/{split}/curves.csv",
        surface="<results>/safe_retrieval/{backbone}/{variant}/{dataset}/{split}/surface.csv",
    log:
        "<logs>/safe_retrieval/{backbone}/{variant}/{dataset}/{split}.log",
    benchmark:
        "<benchmarks>/safe_retrieval/{backbone}/{variant}/{dataset}/{split}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    resources:
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(4 * 60),
    params:
        spec=lambda wildcards: spec(
            specs.safe_retrieval_spec, wildcards.backbone, wildcards.dataset, wildcards.split, wildcards.variant
        ),
        code=code_digest("pipeline_lib.stages.safe_retrieval"),
    shell:
        "python -m pipeline_lib safe_retrieval --spec {params.spec:q} "
        "--features $(dirname $(dirname {input.eval:q})) --baselines $(dirname {input.baselines:q}) "
        "--scores $(dirname {input.scores:q}) --neighbours $(dirname {input.neighbours:q}) "
        "--output $(dirname {output.manifest:q}) 2>&1 | tee {log:q}"


rule calibrate:
    input:
        baselines="<results>/evaluation/{backbone}/baselines/{dataset}/{split}/manifest.json",
        scores="<results>/evaluation/{backbone}/heads/{variant}/{dataset}/{split}/manifest.json",
    output:
        manifest="<results>/calibration/{backbone}/{variant}/{dataset}/{split}/manifest.json",
        figure="<results>/calibration/{backbone}/{variant}/{dataset}/{split}/reliability.png",
        thresholds="<results>/calibration/{backbone}/{variant}/{dataset}/{split}/thresholds.csv",
    log:
        "<logs>/calibration/{backbone}/{variant}/{dataset}/{split}.log",
    benchmark:
        "<benchmarks>/calibration/{backbone}/{variant}/{dataset}/{split}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    resources:
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(4 * 60),
    params:
        spec=lambda wildcards: spec(
            specs.calibration_spec, wildcards.backbone, wildcards.dataset, wildcards.split, wildcards.variant
        ),
        code=code_digest("pipeline_lib.stages.calibrate"),
    shell:
        "python -m pipeline_lib calibrate --spec {params.spec:q} --baselines $(dirname {input.baselines:q}) "
        "--scores $(dirname {input.scores:q}) --output $(dirname {output.manifest:q}) 2>&1 | tee {log:q}"


rule deteriorations:
    input:
        cache="<results>/features/{backbone}/{dataset}/{split}/deteriorations/cache/manifest.json",
        scores="<results>/evaluation/{backbone}/heads/{variant}/{dataset}/{split}/manifest.json",
        heads=expand("<results>/heads/{{backbone}}/{{variant}}/seed{seed}/manifest.json", seed=CONFIG.seeds),
    output:
        manifest="<results>/deteriorations/{backbone}/{variant}/{dataset}/{split}/manifest.json",
        metrics="<results>/deteriorations/{backbone}/{variant}/{dataset}/{split}/metrics.csv",
        scores="<results>/deteriorations/{backbone}/{variant}/{dataset}/{split}/scores.parquet",
    log:
        "<logs>/deteriorations/{backbone}/{variant}/{dataset}/{split}.log",
    benchmark:
        "<benchmarks>/deteriorations/{backbone}/{variant}/{dataset}/{split}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    resources:
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(4 * 60),
    params:
        spec=lambda wildcards: spec(
            specs.deteriorations_spec, wildcards.backbone, wildcards.dataset, wildcards.split, wildcards.variant
        ),
        code=code_digest("pipeline_lib.stages.deteriorations"),
        heads=heads_argument,
    shell:
        "python -m pipeline_lib deteriorations --spec {params.spec:q} "
        "--features $(dirname $(dirname {input.cache:q})) --scores $(dirname {input.scores:q}) "
        "--heads {params.heads} --output $(dirname {output.manifest:q}) 2>&1 | tee {log:q}"


rule projection:
    input:
        dataset="<results>/datasets/{dataset}/manifest.json",
        eval="<results>/features/{backbone}/{dataset}/{split}/eval/cache/manifest.json",
    output:
        manifest="<results>/projection/{backbone}/{dataset}/{split}/manifest.json",
        coordinates="<results>/projection/{backbone}/{dataset}/{split}/coordinates.parquet",
    log:
        "<logs>/projection/{backbone}/{dataset}/{split}.log",
    benchmark:
        "<benchmarks>/projection/{backbone}/{dataset}/{split}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    resources:
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(4 * 60),
    params:
        spec=spec(specs.projection_spec),
        code=code_digest("pipeline_lib.stages.projection"),
    shell:
        "python -m pipeline_lib projection --spec {params.spec:q} --dataset $(dirname {input.dataset:q}) "
        "--features $(dirname $(dirname {input.eval:q})) --output $(dirname {output.manifest:q}) 2>&1 | tee {log:q}"
