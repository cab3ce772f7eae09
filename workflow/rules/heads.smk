# Heads, reading cached features only; those that read the same cache are trained together where several are missing.

from pipeline_lib.stages import head


rule task_loss:
    input:
        unpack(job("task_loss")),
    output:
        update("<results>/task_losses/{backbone}/{view}/{task_loss}/manifest.json"),
    log:
        "<logs>/task_losses/{backbone}/{view}/{task_loss}.log",
    benchmark:
        "<benchmarks>/task_losses/{backbone}/{view}/{task_loss}.tsv"
    priority: FIRST
    conda:
        "../../envs/pipeline.yaml"
    threads: CONFIG.task_losses.threads
    resources:
        gpu=gpu(CONFIG.task_losses.device),
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(24 * 60),
    shell:
        command("task_loss")


HEAD_BUNDLES = together("head", head.wanted(CONFIG))


rule head:
    input:
        unpack(job("head")),
    output:
        update("<results>/heads/{backbone}/{variant}/seed{seed}/manifest.json"),
    log:
        "<logs>/heads/{backbone}/{variant}/seed{seed}.log",
    benchmark:
        "<benchmarks>/heads/{backbone}/{variant}/seed{seed}.tsv"
    wildcard_constraints:
        backbone=none_of("heads", HEAD_BUNDLES),
    priority: FIRST
    conda:
        "../../envs/pipeline.yaml"
    threads: lambda wildcards: CONFIG.training_of(wildcards.variant).threads
    resources:
        gpu=lambda wildcards: gpu(CONFIG.training_of(wildcards.variant).device),
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(12 * 60),
    shell:
        command("head")


for BUNDLE, HEADS in HEAD_BUNDLES.items():
    TRAINING = CONFIG.training_of(dict(HEADS[0].wildcards)["variant"])

    rule:
        name:
            BUNDLE
        input:
            unpack(lambda wildcards, refs=HEADS: several_jobs(refs)),
        output:
            [update(str(GRAPH.outputs(ref)[0])) for ref in HEADS],
        log:
            f"<logs>/heads/{BUNDLE}.log",
        benchmark:
            f"<benchmarks>/heads/{BUNDLE}.tsv"
        priority: FIRST
        conda:
            "../../envs/pipeline.yaml"
        threads: TRAINING.threads
        resources:
            gpu=gpu(TRAINING.device),
            mem_mb=larger_each_attempt(32_000),
            runtime=larger_each_attempt(24 * 60),
        shell:
            command("head")


rule joint_training:
    input:
        unpack(job("joint_training")),
    output:
        update("<results>/joint_training/{backbone}/{mode}/seed{seed}/manifest.json"),
    log:
        "<logs>/joint_training/{backbone}/{mode}/seed{seed}.log",
    benchmark:
        "<benchmarks>/joint_training/{backbone}/{mode}/seed{seed}.tsv"
    wildcard_constraints:
        mode="stop_gradient|no_stop_gradient",
    conda:
        "../../envs/pipeline.yaml"
    threads: CONFIG.joint_training.options.threads if CONFIG.joint_training else 1
    resources:
        gpu=gpu(CONFIG.joint_training.options.device if CONFIG.joint_training else "cpu"),
        workers=CONFIG.features.workers,
        cpus_per_task=CONFIG.features.workers + (CONFIG.joint_training.options.threads if CONFIG.joint_training else 1),
        mem_mb=larger_each_attempt(32_000),
        runtime=larger_each_attempt(24 * 60),
    shell:
        command("joint_training", "--workers {resources.workers}")
