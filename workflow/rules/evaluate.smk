# Evaluation: neighbours, per-sample scores and tidy metrics of each set, then one table of all metrics.

from pipeline_lib.stages import evaluate_heads


rule neighbours:
    input:
        unpack(job("neighbours")),
    output:
        update("<results>/neighbours/{backbone}/{dataset}/{split}/manifest.json"),
    log:
        "<logs>/neighbours/{backbone}/{dataset}/{split}.log",
    benchmark:
        "<benchmarks>/neighbours/{backbone}/{dataset}/{split}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: CONFIG.evaluation.neighbours.threads
    resources:
        gpu=gpu(CONFIG.evaluation.neighbours.device),
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(12 * 60),
    shell:
        command("neighbours")


rule baselines:
    input:
        unpack(job("baselines")),
    output:
        update("<results>/evaluation/{backbone}/baselines/{dataset}/{split}/manifest.json"),
    log:
        "<logs>/evaluation/{backbone}/baselines/{dataset}/{split}.log",
    benchmark:
        "<benchmarks>/evaluation/{backbone}/baselines/{dataset}/{split}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    resources:
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(4 * 60),
    shell:
        command("baselines")


# Ablations are evaluated together, each set at once.
EVALUATION_BUNDLES = together("evaluation", evaluate_heads.wanted_ablations(CONFIG))


rule evaluate_heads:
    input:
        unpack(job("evaluate_heads")),
    output:
        update("<results>/evaluation/{backbone}/heads/{variant}/{dataset}/{split}/manifest.json"),
    log:
        "<logs>/evaluation/{backbone}/heads/{variant}/{dataset}/{split}.log",
    benchmark:
        "<benchmarks>/evaluation/{backbone}/heads/{variant}/{dataset}/{split}.tsv"
    wildcard_constraints:
        backbone=none_of("evaluation", EVALUATION_BUNDLES),
    conda:
        "../../envs/pipeline.yaml"
    resources:
        mem_mb=larger_each_attempt(16_000),
        runtime=larger_each_attempt(4 * 60),
    shell:
        command("evaluate_heads")


for BUNDLE, EVALUATIONS in EVALUATION_BUNDLES.items():

    rule:
        name:
            BUNDLE
        input:
            unpack(lambda wildcards, refs=EVALUATIONS: several_jobs(refs)),
        output:
            [update(str(GRAPH.outputs(ref)[0])) for ref in EVALUATIONS],
        log:
            f"<logs>/evaluation/{BUNDLE}.log",
        benchmark:
            f"<benchmarks>/evaluation/{BUNDLE}.tsv"
        conda:
            "../../envs/pipeline.yaml"
        resources:
            mem_mb=larger_each_attempt(16_000),
            runtime=larger_each_attempt(4 * 60),
        shell:
            command("evaluate_heads")


rule metrics:
    input:
        unpack(job("metrics")),
    output:
        report(
            update("<results>/metrics.csv"),
            category="Tables",
            caption="../report/metrics.rst",
            labels={"table": "every number"},
        ),
    log:
        "<logs>/metrics.log",
    benchmark:
        "<benchmarks>/metrics.tsv"
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        glossary=glossary_of_metrics,
    shell:
        command("metrics")


rule provenance:
    input:
        unpack(job("provenance")),
    output:
        artefacts=report(
            update("<results>/provenance/artefacts.csv"),
            category="Provenance",
            caption="../report/artefacts.rst",
            labels={"table": "artefacts"},
        ),
        software=report(
            update("<results>/provenance/software.csv"),
            category="Provenance",
            caption="../report/software.rst",
            labels={"table": "software"},
        ),
    log:
        "<logs>/provenance.log",
    benchmark:
        "<benchmarks>/provenance.tsv"
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    shell:
        command("provenance")
