# Checkpoints to take home: heads, backbone and model card of every backbone and variant.

CHECKPOINTS = expand(
    "<results>/checkpoints/{backbone}/{variant}/manifest.json", backbone=CONFIG.backbones, variant=CONFIG.variants
)


rule export:
    input:
        backbone="<results>/backbones/{backbone}/manifest.json",
        heads=expand("<results>/heads/{{backbone}}/{{variant}}/seed{seed}/manifest.json", seed=CONFIG.seeds),
        upstream=f"<results>/evaluation/{{backbone}}/heads/{{variant}}/{UPSTREAM.dataset}/{UPSTREAM.split}/manifest.json",
        metrics="<results>/metrics.csv",
    output:
        manifest="<results>/checkpoints/{backbone}/{variant}/manifest.json",
        config="<results>/checkpoints/{backbone}/{variant}/config.json",
        weights="<results>/checkpoints/{backbone}/{variant}/model.safetensors",
        card="<results>/checkpoints/{backbone}/{variant}/README.md",
    log:
        "<logs>/checkpoints/{backbone}/{variant}.log",
    benchmark:
        "<benchmarks>/checkpoints/{backbone}/{variant}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    resources:
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(60),
    params:
        spec=lambda wildcards: spec(specs.export_spec, wildcards.backbone, wildcards.variant),
        code=code_digest("pipeline_lib.stages.export"),
        heads=heads_argument,
    shell:
        "python -m pipeline_lib export --spec {params.spec:q} --backbone $(dirname {input.backbone:q}) "
        "--heads {params.heads} --upstream $(dirname {input.upstream:q}) --metrics {input.metrics:q} "
        "--output $(dirname {output.manifest:q}) 2>&1 | tee {log:q}"
