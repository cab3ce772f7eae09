# Checkpoints to take home: heads, backbone and model card of every backbone and variant.


rule export:
    input:
        unpack(job("export")),
    output:
        update("<results>/checkpoints/{backbone}/{variant}/manifest.json"),
    log:
        "<logs>/checkpoints/{backbone}/{variant}.log",
    benchmark:
        "<benchmarks>/checkpoints/{backbone}/{variant}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    resources:
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(60),
    shell:
        command("export")
