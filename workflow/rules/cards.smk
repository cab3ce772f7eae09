# Dataset cards: what is in every evaluated dataset and upstream, and what of it occurs upstream.

CARDS = expand("<results>/cards/{dataset}/card.html", dataset=dict.fromkeys(entry.dataset for entry in EVALUATION_SETS))


rule dataset_card:
    input:
        index="<results>/datasets/{dataset}/index.parquet",
        upstream=f"<results>/datasets/{UPSTREAM.dataset}/index.parquet",
        # The images of the upstream set are decoded once, for its own card.
        upstream_card=lambda wildcards: (
            [] if wildcards.dataset == UPSTREAM.dataset else f"{RESULTS}/cards/{UPSTREAM.dataset}/pixels.parquet"
        ),
    output:
        manifest="<results>/cards/{dataset}/manifest.json",
        json="<results>/cards/{dataset}/card.json",
        md="<results>/cards/{dataset}/card.md",
        html=report(
            "<results>/cards/{dataset}/card.html",
            category="Datasets",
            caption="../report/dataset_card.rst",
            labels={"dataset": "{dataset}", "shown": "card"},
        ),
        png=report(
            "<results>/cards/{dataset}/contact_sheet.png",
            category="Datasets",
            caption="../report/dataset_card.rst",
            labels={"dataset": "{dataset}", "shown": "random images"},
        ),
        pixels="<results>/cards/{dataset}/pixels.parquet",
    log:
        "<logs>/cards/{dataset}.log",
    benchmark:
        "<benchmarks>/cards/{dataset}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    resources:
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(4 * 60),
    params:
        limit="" if CONFIG.evaluation.card_images is None else f"--max-images {CONFIG.evaluation.card_images}",
        known=lambda wildcards, input: (
            f"--upstream-card {Path(input.upstream_card).parent}" if input.upstream_card else ""
        ),
        code=lambda wildcards: code_digest("pipeline_lib.stages.dataset_card", kind("datasets", wildcards.dataset)),
    shell:
        "python -m pipeline_lib dataset_card --dataset $(dirname {input.index:q}) "
        "--upstream $(dirname {input.upstream:q}) {params.known} {params.limit} --output $(dirname {output.manifest:q}) "
        "2>&1 | tee {log:q}"
