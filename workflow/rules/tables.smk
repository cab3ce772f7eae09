# Tables: views of metrics.csv, as csv, md and tex; one rule per table.

TABLES = ["zero_shot", "all_metrics", "safe_retrieval", "selective", "published", "compat"]
TABLES += ["ablations"] if CONFIG.ablations else []
TABLES += ["benchmark"] if CONFIG.benchmark else []
TABLE_FILES = expand("<results>/tables/{table}.{suffix}", table=TABLES, suffix=["csv", "md", "tex"])


rule table_zero_shot:
    input:
        metrics="<results>/metrics.csv",
        published=PUBLISHED,
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
        spec=spec(specs.table_spec, "zero_shot"),
        code=table_code("zero_shot"),
    shell:
        "python -m pipeline_lib table --name {params.name} --spec {params.spec:q} --metrics {input.metrics:q} "
        "--published {input.published:q} --csv {output.csv:q} --md {output.md:q} --tex {output.tex:q} "
        "2>&1 | tee {log:q}"


use rule table_zero_shot as table_all_metrics with:
    input:
        metrics="<results>/metrics.csv",
        published=PUBLISHED,
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
        spec=spec(specs.table_spec, "all_metrics"),
        code=table_code("all_metrics"),


use rule table_zero_shot as table_safe_retrieval with:
    input:
        metrics="<results>/metrics.csv",
        published=PUBLISHED,
    output:
        csv=report(
            "<results>/tables/safe_retrieval.csv",
            category="Tables",
            caption="../report/safe_retrieval_table.rst",
            labels={"table": "safe retrieval (Table 1)"},
        ),
        md="<results>/tables/safe_retrieval.md",
        tex="<results>/tables/safe_retrieval.tex",
    log:
        "<logs>/tables/safe_retrieval.log",
    benchmark:
        "<benchmarks>/tables/safe_retrieval.tsv"
    params:
        name="safe_retrieval",
        spec=spec(specs.table_spec, "safe_retrieval"),
        code=table_code("safe_retrieval"),


use rule table_zero_shot as table_selective with:
    input:
        metrics="<results>/metrics.csv",
        published=PUBLISHED,
    output:
        csv=report(
            "<results>/tables/selective.csv",
            category="Tables",
            caption="../report/selective_table.rst",
            labels={"table": "risk and coverage"},
        ),
        md="<results>/tables/selective.md",
        tex="<results>/tables/selective.tex",
    log:
        "<logs>/tables/selective.log",
    benchmark:
        "<benchmarks>/tables/selective.tsv"
    params:
        name="selective",
        spec=spec(specs.table_spec, "selective"),
        code=table_code("selective"),


if CONFIG.ablations:

    use rule table_zero_shot as table_ablations with:
        input:
            metrics="<results>/metrics.csv",
            published=PUBLISHED,
        output:
            csv=report(
                "<results>/tables/ablations.csv",
                category="Tables",
                caption="../report/ablations.rst",
                labels={"table": "ablations (Table 3)"},
            ),
            md="<results>/tables/ablations.md",
            tex="<results>/tables/ablations.tex",
        log:
            "<logs>/tables/ablations.log",
        benchmark:
            "<benchmarks>/tables/ablations.tsv"
        params:
            name="ablations",
            spec=spec(specs.table_spec, "ablations"),
            code=table_code("ablations"),


use rule table_zero_shot as table_published with:
    input:
        metrics="<results>/metrics.csv",
        published=PUBLISHED,
    output:
        csv=report(
            "<results>/tables/published.csv",
            category="Tables",
            caption="../report/published.rst",
            labels={"table": "ours beside the published numbers"},
        ),
        md="<results>/tables/published.md",
        tex="<results>/tables/published.tex",
    log:
        "<logs>/tables/published.log",
    benchmark:
        "<benchmarks>/tables/published.tsv"
    params:
        name="published",
        spec=spec(specs.table_spec, "published"),
        code=table_code("published"),


use rule table_zero_shot as table_compat with:
    input:
        metrics="<results>/metrics.csv",
        published=PUBLISHED,
    output:
        csv=report(
            "<results>/tables/compat.csv",
            category="Tables",
            caption="../report/compat.rst",
            labels={"table": "what the reference code's deviations change"},
        ),
        md="<results>/tables/compat.md",
        tex="<results>/tables/compat.tex",
    log:
        "<logs>/tables/compat.log",
    benchmark:
        "<benchmarks>/tables/compat.tsv"
    params:
        name="compat",
        spec=spec(specs.table_spec, "compat"),
        code=table_code("compat"),


if CONFIG.benchmark:

    use rule table_zero_shot as table_benchmark with:
        input:
            metrics="<results>/metrics.csv",
            published=own_file("workflow/published/url_benchmark.csv"),
        output:
            csv=report(
                "<results>/tables/benchmark.csv",
                category="Tables",
                caption="../report/benchmark_table.rst",
                labels={"table": "methods of the URL benchmark"},
            ),
            md="<results>/tables/benchmark.md",
            tex="<results>/tables/benchmark.tex",
        log:
            "<logs>/tables/benchmark.log",
        benchmark:
            "<benchmarks>/tables/benchmark.tsv"
        params:
            name="benchmark",
            spec=spec(specs.table_spec, "benchmark"),
            code=table_code("benchmark"),
