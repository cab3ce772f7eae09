# Datasets: an index of every image. A checkpoint, because the number of images decides the number of blocks.


checkpoint dataset:
    input:
        lambda wildcards: watched_files("datasets", wildcards.dataset),
    output:
        manifest="<results>/datasets/{dataset}/manifest.json",
        index="<results>/datasets/{dataset}/index.parquet",
    log:
        "<logs>/datasets/{dataset}.log",
    benchmark:
        "<benchmarks>/datasets/{dataset}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    params:
        spec=lambda wildcards: spec(specs.dataset_spec, wildcards.dataset),
        code=lambda wildcards: code_digest("pipeline_lib.stages.dataset", kind("datasets", wildcards.dataset)),
    shell:
        "python -m pipeline_lib dataset --spec {params.spec:q} --output $(dirname {output.manifest:q}) "
        "2>&1 | tee {log:q}"


def kind(family, name):
    """Return the module of a dataset's or backbone's kind, whose code a job runs besides its stage's."""
    return specs.kind_module(CONFIG, family, name)


def watched_files(family, name):
    """Return the user's files behind a dataset or backbone, so that a change makes it stale."""
    options = getattr(CONFIG, family)[name]
    kind_code = kinds.load(family, options.kind)
    arguments = (options, Path(CONFIG.data_dir)) if family == "datasets" else (options,)
    return [str(path) for path in kind_code.watched_files(*arguments)]


def split_size(dataset, split):
    """Return the number of images in a split, once the dataset is indexed."""
    manifest = checkpoints.dataset.get(dataset=dataset).output.manifest
    splits = json.loads(Path(manifest).read_text())["facts"]["splits"]
    if split not in splits:
        raise WorkflowError(f"dataset '{dataset}' has no split '{split}'; it has {', '.join(sorted(splits))}")
    return splits[split]
