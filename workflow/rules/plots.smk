# Plots: views of metrics.csv, of per-sample scores and of training curves, as png and pdf; one rule per figure.

PLOTS = ["zero_shot", "recall_vs_auroc", "densities", "examples", "training_curves"]
PLOT_FILES = expand("<results>/plots/{plot}.{suffix}", plot=PLOTS, suffix=["png", "pdf"])
SCORES = "<results>/evaluation/{backbone}/heads/{variant}/{set.dataset}/{set.split}/scores.parquet"
FIRST_BACKBONE, FIRST_VARIANT = next(iter(CONFIG.backbones)), next(iter(CONFIG.variants))


rule plot_zero_shot:
    input:
        "<results>/metrics.csv",
    output:
        png=report(
            "<results>/plots/zero_shot.png",
            category="Zero-shot",
            caption="../report/zero_shot.rst",
            labels={"figure": "R-AUROC per dataset"},
        ),
        pdf="<results>/plots/zero_shot.pdf",
    log:
        "<logs>/plots/zero_shot.log",
    benchmark:
        "<benchmarks>/plots/zero_shot.tsv"
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        name="zero_shot",
        spec=spec(specs.plot_spec, "zero_shot"),
        code=plot_code("zero_shot"),
        results=lambda wildcards, output: Path(output.png).parents[1],
    shell:
        "python -m pipeline_lib plot --name {params.name} --spec {params.spec:q} --results {params.results:q} "
        "--png {output.png:q} --pdf {output.pdf:q} 2>&1 | tee {log:q}"


use rule plot_zero_shot as plot_recall_vs_auroc with:
    input:
        "<results>/metrics.csv",
    output:
        png=report(
            "<results>/plots/recall_vs_auroc.png",
            category="Zero-shot",
            caption="../report/recall_vs_auroc.rst",
            labels={"figure": "Recall@1 against R-AUROC"},
        ),
        pdf="<results>/plots/recall_vs_auroc.pdf",
    log:
        "<logs>/plots/recall_vs_auroc.log",
    benchmark:
        "<benchmarks>/plots/recall_vs_auroc.tsv"
    params:
        name="recall_vs_auroc",
        spec=spec(specs.plot_spec, "recall_vs_auroc"),
        code=plot_code("recall_vs_auroc"),
        results=lambda wildcards, output: Path(output.png).parents[1],


use rule plot_zero_shot as plot_densities with:
    input:
        "<results>/metrics.csv",
        expand(SCORES, backbone=CONFIG.backbones, variant=FIRST_VARIANT, set=EVALUATION_SETS),
    output:
        png=report(
            "<results>/plots/densities.png",
            category="Zero-shot",
            caption="../report/densities.rst",
            labels={"figure": "uncertainty upstream and downstream"},
        ),
        pdf="<results>/plots/densities.pdf",
    log:
        "<logs>/plots/densities.log",
    benchmark:
        "<benchmarks>/plots/densities.tsv"
    params:
        name="densities",
        spec=spec(specs.plot_spec, "densities"),
        code=plot_code("densities"),
        results=lambda wildcards, output: Path(output.png).parents[1],


use rule plot_zero_shot as plot_examples with:
    input:
        expand("<results>/datasets/{set.dataset}/index.parquet", set=EVALUATION_SETS),
        expand(SCORES, backbone=FIRST_BACKBONE, variant=FIRST_VARIANT, set=EVALUATION_SETS),
    output:
        png=report(
            "<results>/plots/examples.png",
            category="Zero-shot",
            caption="../report/examples.rst",
            labels={"figure": "least and most uncertain images"},
        ),
        pdf="<results>/plots/examples.pdf",
    log:
        "<logs>/plots/examples.log",
    benchmark:
        "<benchmarks>/plots/examples.tsv"
    params:
        name="examples",
        spec=spec(specs.plot_spec, "examples"),
        code=plot_code("examples"),
        results=lambda wildcards, output: Path(output.png).parents[1],


use rule plot_zero_shot as plot_training_curves with:
    input:
        expand(
            "<results>/heads/{backbone}/{variant}/seed{seed}/curve.jsonl",
            backbone=CONFIG.backbones,
            variant=CONFIG.variants,
            seed=CONFIG.seeds,
        ),
    output:
        png=report(
            "<results>/plots/training_curves.png",
            category="Training",
            caption="../report/training_curves.rst",
            labels={"figure": "training of the heads"},
        ),
        pdf="<results>/plots/training_curves.pdf",
    log:
        "<logs>/plots/training_curves.log",
    benchmark:
        "<benchmarks>/plots/training_curves.tsv"
    params:
        name="training_curves",
        spec=spec(specs.plot_spec, "training_curves"),
        code=plot_code("training_curves"),
        results=lambda wildcards, output: Path(output.png).parents[1],
