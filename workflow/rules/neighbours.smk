# Neighbours: the exact cosine nearest neighbour of each image, in its set and in a mix with the upstream set. They depend
# on no head, so they are found once.


rule neighbours:
    input:
        cache="<results>/features/{backbone}/{dataset}/{split}/eval/cache/manifest.json",
        upstream=upstream_features,
    output:
        "<results>/neighbours/{backbone}/{dataset}/{split}/manifest.json",
    log:
        "<logs>/neighbours/{backbone}/{dataset}/{split}.log",
    benchmark:
        "<benchmarks>/neighbours/{backbone}/{dataset}/{split}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: CONFIG.evaluation.neighbours.threads
    resources:
        gpu=gpu(CONFIG.evaluation.neighbours.device),
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(4 * 60),
    params:
        spec=lambda wildcards: spec(specs.neighbours_spec, wildcards.backbone, wildcards.dataset, wildcards.split),
        code=code_digest("pipeline_lib.stages.neighbours"),
        upstream=lambda wildcards: "".join(
            f"--upstream-features {Path(path).parents[1]}" for path in upstream_features(wildcards)
        ),
    shell:
        "python -m pipeline_lib neighbours --spec {params.spec:q} "
        "--features $(dirname $(dirname {input.cache:q})) {params.upstream} --output $(dirname {output:q}) "
        "2>&1 | tee {log:q}"
