# Statistics of cached representations, on request: snakemake --cores all feature_statistics
# Not part of the default target: nothing reads them but people.

# Jobs learn the scheduler from their environment: where something is computed must make nothing stale.
if CONFIG.dask.scheduler:
    os.environ.update(DASK_SCHEDULER_ADDRESS=CONFIG.dask.scheduler)


rule feature_statistics_of_view:
    input:
        unpack(job("feature_statistics")),
    output:
        update("<results>/feature_statistics/{backbone}/{dataset}/{split}/{view}/manifest.json"),
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
    shell:
        f"DASK_NUM_WORKERS={{threads}} {command('feature_statistics')}"


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
