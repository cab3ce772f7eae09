# Features: blocks of cached representations, one job each, and the record that makes one cache of them.

from pipeline_lib.config.features import EVALUATION_VIEWS

# Views of the same images that one job extracts, each image decoded once: of evaluated splits, and those that only
# ablations learn from.
TOGETHER = {"evaluation": EVALUATION_VIEWS, "ablation": CONFIG.joint_views}
BLOCKS = "<results>/features/{backbone}/{dataset}/{split}"


rule training_features:
    input:
        unpack(job("features")),
    output:
        update(f"{BLOCKS}/{{view}}/blocks/samples-{{start}}-{{stop}}_epochs-{{first}}-{{last}}/manifest.json"),
    log:
        "<logs>/features/{backbone}/{dataset}/{split}/{view}/samples-{start}-{stop}_epochs-{first}-{last}.log",
    benchmark:
        "<benchmarks>/features/{backbone}/{dataset}/{split}/{view}/samples-{start}-{stop}_epochs-{first}-{last}.tsv"
    wildcard_constraints:
        view=f"(?!({one_of([view for views in TOGETHER.values() for view in views])})/)[^/]+",
    priority: FIRST
    conda:
        "../../envs/pipeline.yaml"
    threads: CONFIG.features.threads
    resources:
        gpu=gpu(CONFIG.features.device),
        workers=CONFIG.features.workers,
        cpus_per_task=CONFIG.features.workers + CONFIG.features.threads,
        mem_mb=larger_each_attempt(32_000),
        runtime=larger_each_attempt(4 * 60),
    shell:
        command("features", "--workers {resources.workers}")


for name, views in TOGETHER.items():
    if views:

        rule:
            name:
                f"{name}_features"
            input:
                unpack(lambda wildcards, views=views: several_jobs(blocks_of(wildcards, views))),
            output:
                [update(f"{BLOCKS}/{view}/blocks/{one_block(view)}/manifest.json") for view in views],
            log:
                f"<logs>/features/{{backbone}}/{{dataset}}/{{split}}/{name}/samples-{{start}}-{{stop}}.log",
            benchmark:
                f"<benchmarks>/features/{{backbone}}/{{dataset}}/{{split}}/{name}/samples-{{start}}-{{stop}}.tsv"
            conda:
                "../../envs/pipeline.yaml"
            threads: CONFIG.features.threads
            resources:
                gpu=gpu(CONFIG.features.device),
                workers=CONFIG.features.workers,
                cpus_per_task=CONFIG.features.workers + CONFIG.features.threads,
                mem_mb=larger_each_attempt(32_000),
                runtime=larger_each_attempt(4 * 60),
            shell:
                command("features", "--workers {resources.workers}")


rule cache:
    input:
        unpack(blocks_and_more),
    output:
        update("<results>/features/{backbone}/{dataset}/{split}/{view}/cache/manifest.json"),
    log:
        "<logs>/features/{backbone}/{dataset}/{split}/{view}/cache.log",
    benchmark:
        "<benchmarks>/features/{backbone}/{dataset}/{split}/{view}/cache.tsv"
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        # Its inputs are not known before the dataset is indexed.
        described=lambda wildcards: str(GRAPH.description_path(Ref.to("cache", **wildcards))),
    shell:
        command("cache", described="{params.described:q}")
