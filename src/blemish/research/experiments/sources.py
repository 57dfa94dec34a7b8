"""The papers that asked the questions of the experiments."""

SURVEY = (
    'Ben Ammar, Mendoza, Belkhir, Manzanera & Franchi, "Foundation Models and Transformers for Anomaly Detection: A '
    'Survey", arXiv 2507.15905, 2025 (https://arxiv.org/abs/2507.15905)'
)
FOUNDAD = (
    'Zhai, Zhou, Deng, Heckler, Navab & Busam, "Foundation Visual Encoders Are Secretly Few-Shot Anomaly Detectors" '
    "(FoundAD), ICLR 2026 (https://arxiv.org/abs/2510.01934)"
)
TEXT_GUIDED = (
    'Li, Ye, Yu, Xie & Shen, "Text-Guided Multimodal Unified Industrial Anomaly Detection", arXiv 2604.22899, 2026 '
    "(https://arxiv.org/abs/2604.22899)"
)
ANOMALY_DINO = (
    'Damm, Laszkiewicz, Lederer & Fischer, "AnomalyDINO: Boosting Patch-Based Few-Shot Anomaly Detection with DINOv2", '
    "WACV 2025 (https://arxiv.org/abs/2405.14529)"
)
PATCHCORE = (
    'Roth, Pemula, Zepeda, Schölkopf, Brox & Gehler, "Towards Total Recall in Industrial Anomaly Detection" '
    "(PatchCore), CVPR 2022 (https://arxiv.org/abs/2106.08265)"
)
SA_PATCHCORE = (
    'Ishida, Takena, Nota, Mochizuki, Matsumura & Ohashi, "SA-PatchCore: Anomaly Detection in Dataset With '
    'Co-Occurrence Relationships Using Self-Attention", IEEE Access 2023'
)
