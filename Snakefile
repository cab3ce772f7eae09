# Pretrained visual uncertainties: from images to tables with one command.
#
#   snakemake --cores all                                               the embedded default, config.yaml
#   snakemake --cores all --configfile workflow/configs/url_mini.yaml   another world
#   snakemake --cores all --config 'seeds=[1,2,3,4]'                    a change; only what it makes stale runs
#
# results/report/index.html then shows everything on one page.

from snakemake.utils import min_version

min_version("9.12")


# A config file from the command line replaces the default; mixed into it, two worlds would run as one.
if not workflow.configfiles:

    configfile: f"{workflow.current_basedir}/config.yaml"


include: "workflow/rules/common.smk"


report: "workflow/report/workflow.rst"


include: "workflow/rules/summary.smk"
include: "workflow/rules/datasets.smk"
include: "workflow/rules/backbones.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/statistics.smk"
include: "workflow/rules/heads.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/analyses.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        [str(file) for ref in targets(CONFIG) for file in GRAPH.outputs(ref)],


# A part of the whole, as in `snakemake --cores all heads`.
for NAME, STAGES in {
    "datasets": ["dataset"],
    "features": ["cache"],
    "heads": ["head"],
    "tables": ["metrics", "table"],
    "plots": ["figure", "projection_page"],
    "checkpoints": ["export"],
}.items():

    rule:
        name:
            NAME
        input:
            all_of(*STAGES),
