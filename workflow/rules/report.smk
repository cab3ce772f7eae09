# The run's own page: every table and figure, with what they mean; it needs no server.


rule report:
    input:
        unpack(job("report")),
    output:
        update("<results>/report/manifest.json"),
        update("<results>/report/index.html"),
    log:
        "<logs>/report.log",
    benchmark:
        "<benchmarks>/report.tsv"
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    shell:
        command("report")
