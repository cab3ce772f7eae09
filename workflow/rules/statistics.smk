# Statistics of cached representations, on request: snakemake --cores all feature_statistics
# Not part of the default target: nothing reads them but people.

# Jobs learn the scheduler from their environment: where something is computed must make nothing stale.
if CONFIG.dask.scheduler:
    os.environ.update(DASK_SCHEDULER_ADDRESS=CONFIG.dask.scheduler)


rule feature_statistics_of_view:
    input:
        cache="<results>/features/{backbone}/{dataset}/{split}/{view}/cache/manifest.json",
    output:
        manifest="<results>/feature_statistics/{backbone}/{dataset}/{split}/{view}/manifest.json",
        statistics="<results>/feature_statistics/{backbone}/{dataset}/{split}/{view}/statistics.json",
    log:
        "<logs>/feature_statistics/{backbone}/{dataset}/{split}/{view}.log",
    benchmark:
        "<benchmarks>/feature_statistics/{backbone}/{dataset}/{split}/{view}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: 4
    resources:
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(12 * 60),
    params:
        spec=lambda wildcards: spec(
            specs.feature_statistics_spec, wildcards.backbone, wildcards.dataset, wildcards.split, wildcards.view
        ),
        code=code_digest("pipeline_lib.stages.feature_statistics"),
    shell:
        "DASK_NUM_WORKERS={threads} python -m pipeline_lib feature_statistics --spec {params.spec:q} "
        "--features $(dirname $(dirname {input.cache:q})) --output $(dirname {output.manifest:q}) 2>&1 | tee {log:q}"


rule feature_statistics:
    input:
        expand(
            "<results>/feature_statistics/{backbone}/{set.dataset}/{set.split}/eval/manifest.json",
            backbone=[*CONFIG.backbones, *CONFIG.benchmark_backbones],
            set=EVALUATION_SETS,
        ),
        expand(
            "<results>/feature_statistics/{backbone}/{dataset}/{split}/{view}/manifest.json",
            backbone=CONFIG.backbones,
            dataset=UPSTREAM.dataset,
            split=CONFIG.upstream.train_split,
            view=dict.fromkeys(variant.view for variant in CONFIG.variants.values()),
        ),
