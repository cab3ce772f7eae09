# Backbones: frozen encoders with their classifiers: loaded, or trained here on the upstream dataset.


rule backbone:
    input:
        unpack(job("backbone")),
    output:
        update("<results>/backbones/{backbone}/manifest.json"),
    log:
        "<logs>/backbones/{backbone}.log",
    benchmark:
        "<benchmarks>/backbones/{backbone}.tsv"
    wildcard_constraints:
        backbone=f"(?!({one_of(CONFIG.method_backbones)})/)[^/]+",
    priority: FIRST
    conda:
        "../../envs/pipeline.yaml"
    threads: lambda wildcards: getattr(CONFIG.backbone(wildcards.backbone), "threads", 1)
    resources:
        gpu=lambda wildcards: gpu(getattr(CONFIG.backbone(wildcards.backbone), "device", "cpu")),
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(24 * 60),
    shell:
        command("backbone")


# A method of the URL benchmark: the backbone that it trains.
rule method:
    input:
        unpack(job("method")),
    output:
        update("<results>/backbones/{backbone}/manifest.json"),
    log:
        "<logs>/backbones/{backbone}.log",
    benchmark:
        "<benchmarks>/backbones/{backbone}.tsv"
    wildcard_constraints:
        backbone=one_of(CONFIG.method_backbones),
    priority: FIRST
    conda:
        "../../envs/pipeline.yaml"
    threads: lambda wildcards: CONFIG.backbone(wildcards.backbone).training.threads
    resources:
        # With --set-resources method:gpu=4, four processes on a GPU each train one model together.
        gpu=lambda wildcards: gpu(CONFIG.backbone(wildcards.backbone).training.device),
        workers=CONFIG.features.workers,
        cpus_per_task=lambda wildcards: CONFIG.features.workers + CONFIG.backbone(wildcards.backbone).training.threads,
        mem_mb=larger_each_attempt(32_000),
        runtime=larger_each_attempt(24 * 60),
    params:
        curves=CONFIG.curves,
    shell:
        command("method", "--workers {resources.workers} --processes {resources.gpu} --curves {params.curves}")
