# Datasets: their raw files, fetched where the config says from where; an index of every image; a card.


if CONFIG.downloaded_datasets:
    from pipeline_lib.datasets.downloads import check_records

    try:
        check_records(CONFIG, Path(RESULTS))
    except PipelineError as error:
        sys.exit(f"config error: {error}")


rule download:
    input:
        unpack(job("download")),
    output:
        update("<results>/downloads/{dataset}/manifest.json"),
    log:
        "<logs>/downloads/{dataset}.log",
    benchmark:
        "<benchmarks>/downloads/{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of(CONFIG.downloaded_datasets),
    localrule: True  # needs a network, not a processor
    conda:
        "../../envs/pipeline.yaml"
    shell:
        command("download")


# The environment of `make tfds` prepares sets of TensorFlow Datasets, where there is one.
TFDS_PYTHON = Path(ROOT, ".venv-tfds/bin/python")


rule prepare_tfds:
    input:
        unpack(job("prepare_tfds")),
    output:
        update("<results>/downloads/{dataset}/manifest.json"),
    log:
        "<logs>/downloads/{dataset}.log",
    benchmark:
        "<benchmarks>/downloads/{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of(CONFIG.tfds_datasets),
    localrule: True
    conda:
        "../../envs/tfds.yaml"
    params:
        python=str(TFDS_PYTHON) if TFDS_PYTHON.exists() else "python",
    shell:
        "{params.python:q} -m pipeline_lib prepare_tfds --job {input.job:q} 2>&1 | tee {log:q}"


# A checkpoint, because the number of images decides the number of blocks.
checkpoint dataset:
    input:
        unpack(job("dataset")),
    output:
        update("<results>/datasets/{dataset}/manifest.json"),
    log:
        "<logs>/datasets/{dataset}.log",
    benchmark:
        "<benchmarks>/datasets/{dataset}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    resources:
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(12 * 60),
    shell:
        command("dataset")


rule dataset_card:
    input:
        unpack(job("dataset_card")),
    output:
        update("<results>/cards/{dataset}/manifest.json"),
        html=report(
            update("<results>/cards/{dataset}/card.html"),
            category="Datasets",
            caption="../report/dataset_card.rst",
            labels={"dataset": "{dataset}", "shown": "card"},
        ),
        png=report(
            update("<results>/cards/{dataset}/contact_sheet.png"),
            category="Datasets",
            caption="../report/dataset_card.rst",
            labels={"dataset": "{dataset}", "shown": "random images"},
        ),
    log:
        "<logs>/cards/{dataset}.log",
    benchmark:
        "<benchmarks>/cards/{dataset}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    resources:
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(4 * 60),
    shell:
        command("dataset_card")
