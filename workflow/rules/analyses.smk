# Analyses of the first variant's uncertainties: safe retrieval, deteriorated images, maps of the representations.
# Calibration is made when it is asked for, of any backbone, variant and set.


rule safe_retrieval:
    input:
        unpack(job("safe_retrieval")),
    output:
        update("<results>/safe_retrieval/{backbone}/{variant}/{dataset}/{split}/manifest.json"),
    log:
        "<logs>/safe_retrieval/{backbone}/{variant}/{dataset}/{split}.log",
    benchmark:
        "<benchmarks>/safe_retrieval/{backbone}/{variant}/{dataset}/{split}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    resources:
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(4 * 60),
    shell:
        command("safe_retrieval")


rule calibrate:
    input:
        unpack(job("calibrate")),
    output:
        update("<results>/calibration/{backbone}/{variant}/{dataset}/{split}/manifest.json"),
    log:
        "<logs>/calibration/{backbone}/{variant}/{dataset}/{split}.log",
    benchmark:
        "<benchmarks>/calibration/{backbone}/{variant}/{dataset}/{split}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    resources:
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(4 * 60),
    shell:
        command("calibrate")


rule deteriorations:
    input:
        unpack(job("deteriorations")),
    output:
        update("<results>/deteriorations/{backbone}/{variant}/{dataset}/{split}/manifest.json"),
    log:
        "<logs>/deteriorations/{backbone}/{variant}/{dataset}/{split}.log",
    benchmark:
        "<benchmarks>/deteriorations/{backbone}/{variant}/{dataset}/{split}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    resources:
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(4 * 60),
    shell:
        command("deteriorations")


rule projection:
    input:
        unpack(job("projection")),
    output:
        update("<results>/projection/{backbone}/{dataset}/{split}/manifest.json"),
    log:
        "<logs>/projection/{backbone}/{dataset}/{split}.log",
    benchmark:
        "<benchmarks>/projection/{backbone}/{dataset}/{split}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    resources:
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(4 * 60),
    shell:
        command("projection")
