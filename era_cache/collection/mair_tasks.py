"""The 126 tasks of MAIR and their domains (config.py of the official code)."""

from __future__ import annotations

__all__ = ["DOMAINS", "DOMAIN_OF"]

_TASKS = {
    "web": """
        AY2 ELI5 Fever TREx WnCw WnWi WoW zsRE ArguAna CQADupStack Quora TopiOCQA Touche
        ACORDAR CPCD ChroniclingAmericaQA NTCIR PointRec ProCIS-Dialog ProCIS-Turn
        QuanTemp WebTableSearch MISeD SParC SParC-SQL Spider Spider-SQL CAsT_2019
        CAsT_2020 CAsT_2021 CAsT_2022 Core_2017 Microblog_2011 Microblog_2012
        Microblog_2013 Microblog_2014 DD_2015 DD_2016 DD_2017 FairRanking_2021
        FairRanking_2022 NeuCLIR-Tech_2023 NeuCLIR_2022 NeuCLIR_2023 ProductSearch_2023
        ToT_2023 ToT_2024 ExcluIR Core17 News21 Robust04 InstructIR NevIR IFEval
    """,
    "academic": """
        Competition-Math ProofWiki_Proof ProofWiki_Reference Stacks_Proof Stacks_Reference
        Stein_Proof Stein_Reference Trench_Proof Trench_Reference TAD TAS2 StackMathQA
        SciDocs SciFact LitSearch FairRanking_2020
    """,
    "code": """
        APPS CodeEditSearch CodeSearchNet Conala HumanEval-X LeetCode MBPP RepoBench TLDR
        SWE-Bench-Lite FoodAPI HuggingfaceAPI PytorchAPI SpotifyAPI TMDB TensorAPI
        ToolBench WeatherAPI
    """,
    "finance": """
        Apple ConvFinQA FinQA FinanceBench HC3Finance TAT-DQA Trade-the-event FiQA
    """,
    "legal": """
        AILA2019-Case AILA2019-Statutes BSARD BillSum CUAD GerDaLIR LeCaRDv2 LegalQuAD
        REGIR-EU2UK REGIR-UK2EU TREC-Legal_2011
    """,
    "medical": """
        NFCorpus Trec-Covid Monant CARE PrecisionMedicine_2017 PrecisionMedicine_2018
        PrecisionMedicine_2019 PrecisionMedicine-Article_2019
        PrecisionMedicine-Article_2020 CliniDS_2014 CliniDS_2015 CliniDS_2016
        ClinicalTrials_2021 ClinicalTrials_2022 ClinicalTrials_2023 Genomics-AdHoc_2004
        Genomics-AdHoc_2005 Genomics-AdHoc_2006 Genomics-AdHoc_2007
    """,
}

DOMAINS = {domain: tasks.split() for domain, tasks in _TASKS.items()}
DOMAIN_OF = {task: domain for domain, tasks in DOMAINS.items() for task in tasks}
