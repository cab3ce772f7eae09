# Neighbours: the exact cosine nearest neighbour of each image. They depend on no head, so they are found once.


rule neighbours:
    input:
        cache="<results>/features/{backbone}/{dataset}/{split}/eval/cache/manifest.json",
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
    params:
        spec=lambda wildcards: spec(specs.neighbours_spec, wildcards.backbone, wildcards.dataset, wildcards.split),
        code=code_digest("pipeline_lib.stages.neighbours"),
    shell:
        "python -m pipeline_lib neighbours --spec {params.spec:q} "
        "--features $(dirname $(dirname {input.cache:q})) --output $(dirname {output:q}) 2>&1 | tee {log:q}"
