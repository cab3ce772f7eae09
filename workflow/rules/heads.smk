# Heads: one job per backbone, variant and seed, reading cached features only.


rule head:
    input:
        cache=lambda wildcards: (
            f"{RESULTS}/features/{wildcards.backbone}/{UPSTREAM.dataset}/{CONFIG.upstream.train_split}/"
            f"{CONFIG.variants[wildcards.variant].view}/cache/manifest.json"
        ),
    output:
        manifest="<results>/heads/{backbone}/{variant}/seed{seed}/manifest.json",
        weights="<results>/heads/{backbone}/{variant}/seed{seed}/head.safetensors",
        curve="<results>/heads/{backbone}/{variant}/seed{seed}/curve.jsonl",
    log:
        "<logs>/heads/{backbone}/{variant}/seed{seed}.log",
    benchmark:
        "<benchmarks>/heads/{backbone}/{variant}/seed{seed}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: lambda wildcards: CONFIG.training_of(wildcards.variant).threads
    resources:
        gpu=lambda wildcards: gpu(CONFIG.training_of(wildcards.variant).device),
    params:
        spec=lambda wildcards: spec(specs.head_spec, wildcards.backbone, wildcards.variant, int(wildcards.seed)),
        code=code_digest("pipeline_lib.stages.head"),
    shell:
        "python -m pipeline_lib head --spec {params.spec:q} --features $(dirname $(dirname {input.cache:q})) "
        "--output $(dirname {output.manifest:q}) 2>&1 | tee {log:q}"
