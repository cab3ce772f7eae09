# Backbones: frozen encoders with their classifiers, loaded or trained.


rule backbone:
    input:
        lambda wildcards: watched_files("backbones", wildcards.backbone),
        upstream=lambda wildcards: (
            [f"{RESULTS}/datasets/{UPSTREAM.dataset}/manifest.json"]
            if specs.trains(CONFIG, wildcards.backbone)
            else []
        ),
    output:
        manifest="<results>/backbones/{backbone}/manifest.json",
        weights="<results>/backbones/{backbone}/weights.safetensors",
    log:
        "<logs>/backbones/{backbone}.log",
    benchmark:
        "<benchmarks>/backbones/{backbone}.tsv"
    wildcard_constraints:
        # Those that a method trains have a rule of their own.
        backbone=f"(?!({names_pattern(METHOD_BACKBONES)})/)[^/]+" if METHOD_BACKBONES else "[^/]+",
    conda:
        "../../envs/pipeline.yaml"
    threads: lambda wildcards: getattr(CONFIG.backbone(wildcards.backbone), "threads", 1)
    resources:
        gpu=lambda wildcards: gpu(getattr(CONFIG.backbone(wildcards.backbone), "device", "cpu")),
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(24 * 60),
    params:
        spec=lambda wildcards: spec(specs.backbone_spec, wildcards.backbone),
        code=lambda wildcards: code_digest(
            "pipeline_lib.stages.backbone",
            kind("backbones", wildcards.backbone),
            *([kind("datasets", UPSTREAM.dataset)] if specs.trains(CONFIG, wildcards.backbone) else []),
        ),
        upstream=lambda wildcards: (
            f"--upstream {RESULTS}/datasets/{UPSTREAM.dataset}" if specs.trains(CONFIG, wildcards.backbone) else ""
        ),
    shell:
        "python -m pipeline_lib backbone --spec {params.spec:q} {params.upstream} "
        "--output $(dirname {output.manifest:q}) 2>&1 | tee {log:q}"
