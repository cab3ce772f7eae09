# Tables: views of metrics.csv, as csv, md and tex; one rule per table.

TABLES = ["zero_shot", "all_metrics"]
TABLE_FILES = expand("<results>/tables/{table}.{suffix}", table=TABLES, suffix=["csv", "md", "tex"])


rule table_zero_shot:
    input:
        metrics="<results>/metrics.csv",
        published=f"{ROOT}/workflow/published/pretrained_uncertainties.csv",
    output:
        csv=report(
            "<results>/tables/zero_shot.csv",
            category="Tables",
            caption="../report/zero_shot_table.rst",
            labels={"table": "zero-shot R-AUROC"},
        ),
        md="<results>/tables/zero_shot.md",
        tex="<results>/tables/zero_shot.tex",
    log:
        "<logs>/tables/zero_shot.log",
    benchmark:
        "<benchmarks>/tables/zero_shot.tsv"
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        name="zero_shot",
        spec=spec(specs.summary_spec),
        code=code_digest("pipeline_lib.stages.table", "pipeline_lib.stages.tables.zero_shot"),
    shell:
        "python -m pipeline_lib table --name {params.name} --spec {params.spec:q} --metrics {input.metrics:q} "
        "--published {input.published:q} --csv {output.csv:q} --md {output.md:q} --tex {output.tex:q} "
        "2>&1 | tee {log:q}"


use rule table_zero_shot as table_all_metrics with:
    input:
        metrics="<results>/metrics.csv",
        published=f"{ROOT}/workflow/published/pretrained_uncertainties.csv",
    output:
        csv=report(
            "<results>/tables/all_metrics.csv",
            category="Tables",
            caption="../report/all_metrics.rst",
            labels={"table": "all metrics"},
        ),
        md="<results>/tables/all_metrics.md",
        tex="<results>/tables/all_metrics.tex",
    log:
        "<logs>/tables/all_metrics.log",
    benchmark:
        "<benchmarks>/tables/all_metrics.tsv"
    params:
        name="all_metrics",
        spec=spec(specs.summary_spec),
        code=code_digest("pipeline_lib.stages.table", "pipeline_lib.stages.tables.all_metrics"),
