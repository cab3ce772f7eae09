# Datasets: an index of every image. A checkpoint, because the number of images decides the number of blocks.


checkpoint dataset:
    input:
        raw_files,
    output:
        manifest="<results>/datasets/{dataset}/manifest.json",
        index="<results>/datasets/{dataset}/index.parquet",
    log:
        "<logs>/datasets/{dataset}.log",
    benchmark:
        "<benchmarks>/datasets/{dataset}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    resources:
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(12 * 60),
    params:
        spec=lambda wildcards: spec(specs.dataset_spec, wildcards.dataset),
        code=lambda wildcards: code_digest("pipeline_lib.stages.dataset", kind("datasets", wildcards.dataset)),
    shell:
        "python -m pipeline_lib dataset --spec {params.spec:q} --output $(dirname {output.manifest:q}) "
        "2>&1 | tee {log:q}"
