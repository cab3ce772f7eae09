# Plots: views of metrics.csv, of per-sample scores and of training curves, as png and pdf; one rule per figure.

PLOTS = ["zero_shot", "recall_vs_auroc", "densities", "examples", "projection", "human_ambiguity", "risk_coverage"]
PLOTS += ["safe_retrieval_curves", "safe_retrieval_surface", "training_curves"]
PLOTS += ["deteriorations"] if specs.deteriorated_sets(CONFIG) else []
PLOTS += ["joint_training"] if CONFIG.joint_training else []
PLOTS += ["benchmark"] if CONFIG.benchmark else []
PLOT_FILES = expand("<results>/plots/{plot}.{suffix}", plot=PLOTS, suffix=["png", "pdf"])
PAGES = ["<results>/plots/projection.html"]
SCORES = "<results>/evaluation/{backbone}/heads/{variant}/{set.dataset}/{set.split}/scores.parquet"
BASELINE_SCORES = "<results>/evaluation/{backbone}/baselines/{set.dataset}/{set.split}/scores.parquet"
PROJECTED = specs.projected_set(CONFIG)
PROJECTION = f"<results>/projection/{FIRST_BACKBONE}/{PROJECTED.dataset}/{PROJECTED.split}"


rule plot_zero_shot:
    input:
        "<results>/metrics.csv",
    output:
        png=report(
            "<results>/plots/zero_shot.png",
            category="Zero-shot",
            caption="../report/zero_shot.rst",
            labels={"figure": "R-AUROC per dataset (Figure 1)"},
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
        results=results_folder,
    shell:
        "python -m pipeline_lib plot --name {params.name} --spec {params.spec:q} --results {params.results:q} "
        "--png {output.png:q} --pdf {output.pdf:q} 2>&1 | tee {log:q}"


rule plot_recall_vs_auroc:
    input:
        metrics="<results>/metrics.csv",
        published=PUBLISHED,
    output:
        png=report(
            "<results>/plots/recall_vs_auroc.png",
            category="Zero-shot",
            caption="../report/recall_vs_auroc.rst",
            labels={"figure": "Recall@1 against R-AUROC (Figure 4)"},
        ),
        pdf="<results>/plots/recall_vs_auroc.pdf",
    log:
        "<logs>/plots/recall_vs_auroc.log",
    benchmark:
        "<benchmarks>/plots/recall_vs_auroc.tsv"
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        name="recall_vs_auroc",
        spec=spec(specs.plot_spec, "recall_vs_auroc"),
        code=plot_code("recall_vs_auroc"),
        results=results_folder,
    shell:
        "python -m pipeline_lib plot --name {params.name} --spec {params.spec:q} --results {params.results:q} "
        "--published {input.published:q} --png {output.png:q} --pdf {output.pdf:q} 2>&1 | tee {log:q}"


use rule plot_zero_shot as plot_densities with:
    input:
        "<results>/metrics.csv",
        expand(SCORES, backbone=CONFIG.backbones, variant=FIRST_VARIANT, set=EVALUATION_SETS),
    output:
        png=report(
            "<results>/plots/densities.png",
            category="Zero-shot",
            caption="../report/densities.rst",
            labels={"figure": "uncertainty upstream and downstream (Figure 8)"},
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
        results=results_folder,


use rule plot_zero_shot as plot_examples with:
    input:
        expand("<results>/datasets/{set.dataset}/index.parquet", set=EVALUATION_SETS),
        expand(SCORES, backbone=FIRST_BACKBONE, variant=FIRST_VARIANT, set=EVALUATION_SETS),
    output:
        png=report(
            "<results>/plots/examples.png",
            category="Zero-shot",
            caption="../report/examples.rst",
            labels={"figure": "least and most uncertain images (Figure 5)"},
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
        results=results_folder,


use rule plot_zero_shot as plot_projection with:
    input:
        "<results>/metrics.csv",
        f"{PROJECTION}/coordinates.parquet",
        expand(SCORES, backbone=FIRST_BACKBONE, variant=FIRST_VARIANT, set=[PROJECTED]),
    output:
        png=report(
            "<results>/plots/projection.png",
            category="Zero-shot",
            caption="../report/projection.rst",
            labels={"figure": "t-SNE and UMAP with uncertainty (Figure 9)"},
        ),
        pdf="<results>/plots/projection.pdf",
    log:
        "<logs>/plots/projection.log",
    benchmark:
        "<benchmarks>/plots/projection.tsv"
    params:
        name="projection",
        spec=spec(specs.plot_spec, "projection"),
        code=plot_code("projection"),
        results=results_folder,


if specs.deteriorated_sets(CONFIG):

    use rule plot_zero_shot as plot_deteriorations with:
        input:
            "<results>/metrics.csv",
            expand(
                "<results>/deteriorations/{backbone}/{variant}/{set.dataset}/{set.split}/scores.parquet",
                backbone=FIRST_BACKBONE,
                variant=FIRST_VARIANT,
                set=specs.deteriorated_sets(CONFIG),
            ),
            expand(SCORES, backbone=FIRST_BACKBONE, variant=FIRST_VARIANT, set=specs.deteriorated_sets(CONFIG)),
        output:
            png=report(
                "<results>/plots/deteriorations.png",
                category="Deterioration",
                caption="../report/deteriorations.rst",
                labels={"figure": "uncertainty of deteriorated images (Figure 6)"},
            ),
            pdf="<results>/plots/deteriorations.pdf",
        log:
            "<logs>/plots/deteriorations.log",
        benchmark:
            "<benchmarks>/plots/deteriorations.tsv"
        params:
            name="deteriorations",
            spec=spec(specs.plot_spec, "deteriorations"),
            code=plot_code("deteriorations"),
            results=results_folder,


use rule plot_zero_shot as plot_human_ambiguity with:
    input:
        "<results>/metrics.csv",
        expand(SCORES, backbone=FIRST_BACKBONE, variant=FIRST_VARIANT, set=EVALUATION_SETS),
        expand(BASELINE_SCORES, backbone=FIRST_BACKBONE, set=EVALUATION_SETS),
    output:
        png=report(
            "<results>/plots/human_ambiguity.png",
            category="Human ambiguity",
            caption="../report/human_ambiguity.rst",
            labels={"figure": "uncertainty and human disagreement (Figure 7)"},
        ),
        pdf="<results>/plots/human_ambiguity.pdf",
    log:
        "<logs>/plots/human_ambiguity.log",
    benchmark:
        "<benchmarks>/plots/human_ambiguity.tsv"
    params:
        name="human_ambiguity",
        spec=spec(specs.plot_spec, "human_ambiguity"),
        code=plot_code("human_ambiguity"),
        results=results_folder,


use rule plot_zero_shot as plot_risk_coverage with:
    input:
        expand(SCORES, backbone=FIRST_BACKBONE, variant=FIRST_VARIANT, set=EVALUATION_SETS),
        expand(BASELINE_SCORES, backbone=FIRST_BACKBONE, set=EVALUATION_SETS),
    output:
        png=report(
            "<results>/plots/risk_coverage.png",
            category="Retrieval",
            caption="../report/risk_coverage.rst",
            labels={"figure": "risk and coverage"},
        ),
        pdf="<results>/plots/risk_coverage.pdf",
    log:
        "<logs>/plots/risk_coverage.log",
    benchmark:
        "<benchmarks>/plots/risk_coverage.tsv"
    params:
        name="risk_coverage",
        spec=spec(specs.plot_spec, "risk_coverage"),
        code=plot_code("risk_coverage"),
        results=results_folder,


use rule plot_zero_shot as plot_safe_retrieval_curves with:
    input:
        expand(
            "<results>/safe_retrieval/{backbone}/{variant}/{set.dataset}/{set.split}/curves.csv",
            backbone=FIRST_BACKBONE,
            variant=FIRST_VARIANT,
            set=EVALUATION_SETS,
        ),
    output:
        png=report(
            "<results>/plots/safe_retrieval_curves.png",
            category="Retrieval",
            caption="../report/safe_retrieval_curves.rst",
            labels={"figure": "1-NN error without uncertain images (Table 1 as curves)"},
        ),
        pdf="<results>/plots/safe_retrieval_curves.pdf",
    log:
        "<logs>/plots/safe_retrieval_curves.log",
    benchmark:
        "<benchmarks>/plots/safe_retrieval_curves.tsv"
    params:
        name="safe_retrieval_curves",
        spec=spec(specs.plot_spec, "safe_retrieval_curves"),
        code=plot_code("safe_retrieval_curves"),
        results=results_folder,


use rule plot_zero_shot as plot_safe_retrieval_surface with:
    input:
        expand(
            "<results>/safe_retrieval/{backbone}/{variant}/{set.dataset}/{set.split}/surface.csv",
            backbone=FIRST_BACKBONE,
            variant=FIRST_VARIANT,
            set=EVALUATION_SETS,
        ),
    output:
        png=report(
            "<results>/plots/safe_retrieval_surface.png",
            category="Retrieval",
            caption="../report/safe_retrieval_surface.rst",
            labels={"figure": "1-NN error by shares of queries and database"},
        ),
        pdf="<results>/plots/safe_retrieval_surface.pdf",
    log:
        "<logs>/plots/safe_retrieval_surface.log",
    benchmark:
        "<benchmarks>/plots/safe_retrieval_surface.tsv"
    params:
        name="safe_retrieval_surface",
        spec=spec(specs.plot_spec, "safe_retrieval_surface"),
        code=plot_code("safe_retrieval_surface"),
        results=results_folder,


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
        results=results_folder,


if CONFIG.joint_training:

    use rule plot_zero_shot as plot_joint_training with:
        input:
            expand(
                "<results>/joint_training/{backbone}/{mode}/seed{seed}/curve.jsonl",
                backbone=CONFIG.joint_training.backbone,
                mode=["stop_gradient", "no_stop_gradient"],
                seed=CONFIG.joint_training.seeds,
            ),
        output:
            png=report(
                "<results>/plots/joint_training.png",
                category="Training",
                caption="../report/joint_training.rst",
                labels={"figure": "joint training with and without stop-gradient (Figure 3)"},
            ),
            pdf="<results>/plots/joint_training.pdf",
        log:
            "<logs>/plots/joint_training.log",
        benchmark:
            "<benchmarks>/plots/joint_training.tsv"
        params:
            name="joint_training",
            spec=spec(specs.plot_spec, "joint_training"),
            code=plot_code("joint_training"),
            results=results_folder,


if CONFIG.benchmark:

    use rule plot_zero_shot as plot_benchmark with:
        input:
            "<results>/metrics.csv",
        output:
            png=report(
                "<results>/plots/benchmark.png",
                category="Zero-shot",
                caption="../report/benchmark.rst",
                labels={"figure": "Recall@1 against R-AUROC of each method (URL benchmark)"},
            ),
            pdf="<results>/plots/benchmark.pdf",
        log:
            "<logs>/plots/benchmark.log",
        benchmark:
            "<benchmarks>/plots/benchmark.tsv"
        params:
            name="benchmark",
            spec=spec(specs.plot_spec, "benchmark"),
            code=plot_code("benchmark"),
            results=results_folder,


rule projection_page:
    input:
        template=own_file("pipeline_lib/plots/projection_page.html"),
        dataset=f"<results>/datasets/{PROJECTED.dataset}/manifest.json",
        index=f"<results>/datasets/{PROJECTED.dataset}/index.parquet",
        projection=f"{PROJECTION}/manifest.json",
        scores=f"<results>/evaluation/{FIRST_BACKBONE}/heads/{FIRST_VARIANT}/{PROJECTED.dataset}/{PROJECTED.split}/manifest.json",
        baselines=f"<results>/evaluation/{FIRST_BACKBONE}/baselines/{PROJECTED.dataset}/{PROJECTED.split}/manifest.json",
    output:
        report(
            "<results>/plots/projection.html",
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
    params:
        spec=spec(specs.projection_page_spec),
        code=code_digest("pipeline_lib.stages.projection_page", kind("datasets", PROJECTED.dataset)),
    shell:
        "python -m pipeline_lib projection_page --spec {params.spec:q} --dataset $(dirname {input.dataset:q}) "
        "--projection $(dirname {input.projection:q}) --scores $(dirname {input.scores:q}) "
        "--baselines $(dirname {input.baselines:q}) --output {output:q} 2>&1 | tee {log:q}"
