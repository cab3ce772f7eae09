# Tables, one rule each. What a table is called, reads and shows stands in pipeline_lib/tables/<name>.py.

from pipeline_lib.config import kinds

TABLES = kinds.wanted("tables", CONFIG)


for NAME, TABLE in TABLES.items():

    rule:
        name:
            f"table_{NAME}"
        input:
            unpack(job("table", name=NAME)),
        output:
            report(
                update(f"<results>/tables/{NAME}.csv"),
                category="Tables",
                caption="../report/docstring.rst",
                labels={"table": kinds.label(TABLE)},
            ),
            update(f"<results>/tables/{NAME}.md"),
            update(f"<results>/tables/{NAME}.tex"),
        log:
            f"<logs>/tables/{NAME}.log",
        benchmark:
            f"<benchmarks>/tables/{NAME}.tsv"
        localrule: True
        conda:
            "../../envs/pipeline.yaml"
        params:
            # A function of `output` is not recorded: another caption makes nothing stale.
            caption=lambda wildcards, output, text=TABLE.__doc__: text,
        shell:
            command("table")
