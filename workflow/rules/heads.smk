# Heads, reading cached features only: one job per backbone, variant and seed; all ablations of a view in one.


rule task_loss:
    input:
        cache=(
            f"<results>/features/{{backbone}}/{UPSTREAM.dataset}/{CONFIG.upstream.train_split}/{{view}}/cache/manifest.json"
        ),
    output:
        manifest="<results>/task_losses/{backbone}/{view}/{task_loss}/manifest.json",
        array="<results>/task_losses/{backbone}/{view}/{task_loss}/task_loss.npy",
    log:
        "<logs>/task_losses/{backbone}/{view}/{task_loss}.log",
    benchmark:
        "<benchmarks>/task_losses/{backbone}/{view}/{task_loss}.tsv"
    wildcard_constraints:
        task_loss="knn|contrastive",
    conda:
        "../../envs/pipeline.yaml"
    threads: CONFIG.task_losses.threads
    resources:
        gpu=gpu(CONFIG.task_losses.device),
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(24 * 60),
    params:
        spec=lambda wildcards: spec(specs.task_loss_spec, wildcards.backbone, wildcards.view, wildcards.task_loss),
        code=code_digest("pipeline_lib.stages.task_loss"),
    shell:
        "python -m pipeline_lib task_loss --spec {params.spec:q} --features $(dirname $(dirname {input.cache:q})) "
        "--output $(dirname {output.manifest:q}) 2>&1 | tee {log:q}"


rule head:
    input:
        task_loss=lambda wildcards: task_loss_of(wildcards.backbone, wildcards.variant),
        cache=lambda wildcards: (
            f"{RESULTS}/features/{wildcards.backbone}/{UPSTREAM.dataset}/{CONFIG.upstream.train_split}/"
            f"{CONFIG.variants[wildcards.variant].view}/cache/manifest.json"
        ),
    output:
        manifest="<results>/heads/{backbone}/{variant}/seed{seed}/manifest.json",
        weights="<results>/heads/{backbone}/{variant}/seed{seed}/head.safetensors",
        curve="<results>/heads/{backbone}/{variant}/seed{seed}/curve.jsonl",
    log:
        "<logs>/heads/{backbone}/{variant}/seed{seed}.log",
    benchmark:
        "<benchmarks>/heads/{backbone}/{variant}/seed{seed}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: lambda wildcards: CONFIG.training_of(wildcards.variant).threads
    resources:
        gpu=lambda wildcards: gpu(CONFIG.training_of(wildcards.variant).device),
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(12 * 60),
    params:
        spec=lambda wildcards: spec(specs.head_spec, wildcards.backbone, wildcards.variant, int(wildcards.seed)),
        code=code_digest("pipeline_lib.stages.head"),
        task_loss=lambda wildcards: task_loss_argument(wildcards.backbone, wildcards.variant),
    shell:
        "python -m pipeline_lib head --spec {params.spec:q} --features $(dirname $(dirname {input.cache:q})) "
        "{params.task_loss} --output $(dirname {output.manifest:q}) 2>&1 | tee {log:q}"


for VIEW, ABLATIONS in CONFIG.ablation_views().items():

    rule:
        name:
            f"ablation_heads_{VIEW}"
        input:
            cache=f"<results>/features/{{backbone}}/{UPSTREAM.dataset}/{CONFIG.upstream.train_split}/{VIEW}/cache/manifest.json",
            task_loss=lambda wildcards, variant=ABLATIONS[0]: task_loss_of(wildcards.backbone, variant),
        output:
            manifests=expand(
                "<results>/heads/{{backbone}}/{variant}/seed{seed}/manifest.json",
                variant=ABLATIONS,
                seed=CONFIG.seeds,
            ),
            others=expand(
                "<results>/heads/{{backbone}}/{variant}/seed{seed}/{file}",
                variant=ABLATIONS,
                seed=CONFIG.seeds,
                file=["head.safetensors", "curve.jsonl"],
            ),
        log:
            f"<logs>/heads/{{backbone}}/ablations_{VIEW}.log",
        benchmark:
            f"<benchmarks>/heads/{{backbone}}/ablations_{VIEW}.tsv"
        wildcard_constraints:
            backbone=names_pattern(CONFIG.ablations.backbones),
        conda:
            "../../envs/pipeline.yaml"
        threads: CONFIG.training_of(ABLATIONS[0]).threads
        resources:
            gpu=gpu(CONFIG.training_of(ABLATIONS[0]).device),
            mem_mb=larger_each_attempt(32_000),
            runtime=larger_each_attempt(24 * 60),
        params:
            spec=lambda wildcards, view=VIEW: spec(specs.ablation_heads_spec, wildcards.backbone, view),
            code=code_digest("pipeline_lib.stages.ablation_heads"),
            heads=lambda wildcards, output: Path(output.manifests[0]).parents[2],
            task_loss=lambda wildcards, variant=ABLATIONS[0]: task_loss_argument(wildcards.backbone, variant),
        shell:
            "python -m pipeline_lib ablation_heads --spec {params.spec:q} "
            "--features $(dirname $(dirname {input.cache:q})) {params.task_loss} --output {params.heads:q} 2>&1 | tee {log:q}"


if CONFIG.joint_training:

    rule joint_training:
        input:
            dataset=f"<results>/datasets/{UPSTREAM.dataset}/manifest.json",
            index=f"<results>/datasets/{UPSTREAM.dataset}/index.parquet",
            backbone="<results>/backbones/{backbone}/manifest.json",
        output:
            manifest="<results>/joint_training/{backbone}/{mode}/seed{seed}/manifest.json",
            curve="<results>/joint_training/{backbone}/{mode}/seed{seed}/curve.jsonl",
        log:
            "<logs>/joint_training/{backbone}/{mode}/seed{seed}.log",
        benchmark:
            "<benchmarks>/joint_training/{backbone}/{mode}/seed{seed}.tsv"
        wildcard_constraints:
            mode="stop_gradient|no_stop_gradient",
        conda:
            "../../envs/pipeline.yaml"
        threads: CONFIG.joint_training.options.threads
        resources:
            gpu=gpu(CONFIG.joint_training.options.device),
            # Not a parameter: see rule features.
            workers=CONFIG.features.workers,
            cpus_per_task=CONFIG.features.workers + CONFIG.joint_training.options.threads,
            mem_mb=larger_each_attempt(32_000),
            runtime=larger_each_attempt(24 * 60),
        params:
            spec=lambda wildcards: spec(
                specs.joint_training_spec, wildcards.mode == "stop_gradient", int(wildcards.seed)
            ),
            code=lambda wildcards: code_digest(
                "pipeline_lib.stages.joint_training",
                kind("datasets", UPSTREAM.dataset),
                kind("backbones", wildcards.backbone),
            ),
        shell:
            "python -m pipeline_lib joint_training --spec {params.spec:q} --dataset $(dirname {input.dataset:q}) "
            "--backbone $(dirname {input.backbone:q}) --workers {resources.workers} "
            "--output $(dirname {output.manifest:q}) 2>&1 | tee {log:q}"
