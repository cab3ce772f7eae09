# Methods of the URL benchmark: each model is a backbone of kind `method`, trained here on the upstream images.


if METHOD_BACKBONES:

    rule method:
        input:
            dataset=f"<results>/datasets/{UPSTREAM.dataset}/manifest.json",
            checkpoint=lambda wildcards: watched_files("backbones", wildcards.backbone),
        output:
            manifest="<results>/backbones/{backbone}/manifest.json",
            weights="<results>/backbones/{backbone}/weights.safetensors",
        log:
            "<logs>/backbones/{backbone}.log",
        benchmark:
            "<benchmarks>/backbones/{backbone}.tsv"
        wildcard_constraints:
            backbone=names_pattern(METHOD_BACKBONES),
        conda:
            "../../envs/pipeline.yaml"
        threads: lambda wildcards: CONFIG.backbone(wildcards.backbone).training.threads
        resources:
            # With --set-resources method:gpu=4, four processes on a GPU each train one model together.
            gpu=lambda wildcards: gpu(CONFIG.backbone(wildcards.backbone).training.device),
            workers=CONFIG.features.workers,
            cpus_per_task=lambda wildcards: (
                CONFIG.features.workers + CONFIG.backbone(wildcards.backbone).training.threads
            ),
            mem_mb=larger_each_attempt(32_000),
            runtime=larger_each_attempt(24 * 60),
            # Not a parameter either: what is shown while training runs changes no result.
            curves=" ".join(["jsonl", *CONFIG.curves]),
        params:
            spec=lambda wildcards: spec(specs.method_spec, wildcards.backbone),
            code=lambda wildcards: code_digest(
                "pipeline_lib.stages.method",
                *method_modules(wildcards.backbone),
                kind("datasets", UPSTREAM.dataset),
            ),
        shell:
            "python -m pipeline_lib method --spec {params.spec:q} --dataset $(dirname {input.dataset:q}) "
            "--workers {resources.workers} --processes {resources.gpu} --curves {resources.curves} --output $(dirname {output.manifest:q}) 2>&1 | tee {log:q}"
