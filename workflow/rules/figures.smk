# Figures, one rule each. What a figure is called, reads and shows stands in pipeline_lib/figures/<name>.py.

from pipeline_lib.config import kinds

FIGURES = kinds.wanted("figures", CONFIG)


for NAME, FIGURE in FIGURES.items():

    rule:
        name:
            f"figure_{NAME}"
        input:
            unpack(job("figure", name=NAME)),
        output:
            report(
                update(f"<results>/plots/{NAME}.png"),
                category=FIGURE.CATEGORY,
                caption="../report/docstring.rst",
                labels={"figure": kinds.label(FIGURE)},
            ),
            update(f"<results>/plots/{NAME}.pdf"),
        log:
            f"<logs>/plots/{NAME}.log",
        benchmark:
            f"<benchmarks>/plots/{NAME}.tsv"
        localrule: True
        conda:
            "../../envs/pipeline.yaml"
        params:
            # A function of `output` is not recorded: another caption makes nothing stale.
            caption=lambda wildcards, output, text=FIGURE.__doc__: text,
        shell:
            command("figure")


rule projection_page:
    input:
        unpack(job("projection_page")),
    output:
        report(
            update("<results>/plots/projection.html"),
            category="Zero-shot",
            caption="../report/projection_page.rst",
            labels={"figure": "t-SNE and UMAP with thumbnails (interactive)"},
        ),
    log:
        "<logs>/plots/projection_page.log",
    benchmark:
        "<benchmarks>/plots/projection_page.tsv"
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    shell:
        command("projection_page")
