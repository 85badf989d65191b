"""Command lines from READMEs and issues, with the options and environment they mean."""

from __future__ import annotations

from typing import Any

REAL_COMMANDS: list[tuple[str, str, dict[str, Any], dict[str, str]]] = [
    (
        "llama_cpp",
        "llama-server -m models/7B/ggml-model.gguf -c 2048",
        {"model": "models/7B/ggml-model.gguf", "ctx_size": 2048},
        {},
    ),
    (
        "llama_cpp",
        "./llama-server -hf ggml-org/gemma-3-1b-it-GGUF:Q4_K_M --port 8080 --jinja -fa on",
        {
            "hf_repo": "ggml-org/gemma-3-1b-it-GGUF:Q4_K_M",
            "port": 8080,
            "jinja": True,
            "flash_attn": "on",
        },
        {},
    ),
    (
        "llama_cpp",
        """CUDA_VISIBLE_DEVICES=0,1 LLAMA_CACHE="/data/my cache" \\
  ./build/bin/llama-server \\
    --model "/models/Qwen3 235B/Qwen3-235B-A22B-Q4_K_M-00001-of-00003.gguf" \\
    --n-gpu-layers 99 \\
    --override-tensor ".ffn_.*_exps.=CPU" \\
    -ot 'blk\\.(1|2)\\.attn_.*=CUDA0' \\
    -ctk q8_0 -ctv q8_0 \\
    --chat-template-kwargs '{"enable_thinking": false}' \\
    -np 4 -b 4096 -ub 1024 --temp 0.6 --top-p 0.95 --min-p 0 --no-mmap \\
""",
        {
            "model": "/models/Qwen3 235B/Qwen3-235B-A22B-Q4_K_M-00001-of-00003.gguf",
            "gpu_layers": 99,
            "override_tensor": [".ffn_.*_exps.=CPU", r"blk\.(1|2)\.attn_.*=CUDA0"],
            "cache_type_k": "q8_0",
            "cache_type_v": "q8_0",
            "chat_template_kwargs": '{"enable_thinking": false}',
            "parallel": 4,
            "batch_size": 4096,
            "ubatch_size": 1024,
            "temp": 0.6,
            "top_p": 0.95,
            "min_p": 0,
            "no_mmap": True,
        },
        {"CUDA_VISIBLE_DEVICES": "0,1", "LLAMA_CACHE": "/data/my cache"},
    ),
    (
        "llama_cpp",
        "llama-server -m big.gguf -md small.gguf --draft-max 16 --draft-p-min 0.9 -ngld all"
        " -ngl all -s -1 -n -2",
        {
            "model": "big.gguf",
            "model_draft": "small.gguf",
            "draft_max": 16,
            "draft_p_min": 0.9,
            "gpu_layers_draft": "all",
            "gpu_layers": "all",
            "seed": -1,
            "predict": -2,
        },
        {},
    ),
    (
        "llama_cpp",
        "llama serve --embedding --pooling cls -ub 8192 -m bge.gguf --logit-bias 15043+1"
        " -l 15043-1 --control-vector-layer-range 1 30",
        {
            "embedding": True,
            "pooling": "cls",
            "ubatch_size": 8192,
            "model": "bge.gguf",
            "logit_bias": ["15043+1", "15043-1"],
            "control_vector_layer_range": "1 30",
        },
        {},
    ),
    (
        "llama_cpp",
        'C:\\llama\\llama-server.exe -m "C:\\models\\a b.gguf" --fim-qwen-1.5b-default'.replace(
            "C:\\llama\\", "'C:\\llama\\'"
        ),
        {"model": "C:\\models\\a b.gguf", "fim_qwen_1_5b_default": True},
        {},
    ),
    (
        "vllm",
        "vllm serve NousResearch/Meta-Llama-3-8B-Instruct --dtype auto --api-key token-abc123",
        {
            "model": "NousResearch/Meta-Llama-3-8B-Instruct",
            "dtype": "auto",
            "api_key": ["token-abc123"],
        },
        {},
    ),
    (
        "vllm",
        "VLLM_USE_V1=1 vllm serve meta-llama/Llama-2-7b-hf --enable-lora"
        " --lora-modules sql-lora=/loras/sql"
        """ '{"name": "b", "path": "/loras/b", "base_model_name": "x"}' --max-lora-rank 64""",
        {
            "model": "meta-llama/Llama-2-7b-hf",
            "enable_lora": True,
            "lora_modules": [
                "sql-lora=/loras/sql",
                '{"name": "b", "path": "/loras/b", "base_model_name": "x"}',
            ],
            "max_lora_rank": 64,
        },
        {"VLLM_USE_V1": "1"},
    ),
    (
        "vllm",
        "vllm serve Qwen/Qwen3-32B -tp 4 -pp 2 -O3 --max-model-len 32k --gpu-memory-utilization=.9"
        """ --hf-overrides '{"rope_scaling": {"factor": 4.0}}'"""
        """ --limit-mm-per-prompt '{"image":2,"video":0}' --no-enable-prefix-caching""",
        {
            "model": "Qwen/Qwen3-32B",
            "tensor_parallel_size": 4,
            "pipeline_parallel_size": 2,
            "optimization_level": 3,
            "max_model_len": "32k",
            "gpu_memory_utilization": 0.9,
            "hf_overrides": '{"rope_scaling": {"factor": 4.0}}',
            "limit_mm_per_prompt": '{"image":2,"video":0}',
            "enable_prefix_caching": False,
        },
        {},
    ),
    (
        "vllm",
        "python3 -m vllm.entrypoints.openai.api_server --model mistralai/Mistral-7B-v0.1"
        " --served-model-name mistral mistral-7b --seed -1",
        {
            "model": "mistralai/Mistral-7B-v0.1",
            "served_model_name": ["mistral", "mistral-7b"],
            "seed": -1,
        },
        {},
    ),
    (
        "vllm",
        "vllm serve m --speculative_config.method ngram --compilation-config.pass_config.fuse true"
        " -cc.mode=3",
        {
            "model": "m",
            "extra_args": {
                "speculative_config.method": "ngram",
                "compilation_config.pass_config.fuse": ["true"],
                "-cc.mode": "3",
            },
        },
        {},
    ),
    (
        "vllm",
        """vllm serve m --allowed-origins '["https://a.example","https://b.example"]'""",
        {"model": "m", "allowed_origins": ["https://a.example", "https://b.example"]},
        {},
    ),
    (
        "mlx_lm",
        "mlx_lm.server --model mlx-community/Mistral-7B-Instruct-v0.3-4bit --port 8080",
        {"model": "mlx-community/Mistral-7B-Instruct-v0.3-4bit", "port": 8080},
        {},
    ),
    (
        "mlx_lm",
        "python -m mlx_lm.server --model ./m --adapter-path 'my adapters'"
        """ --chat-template-args '{"enable_thinking":false}' --temp 0""",
        {
            "model": "./m",
            "adapter_path": "my adapters",
            "chat_template_args": '{"enable_thinking":false}',
            "temp": 0,
        },
        {},
    ),
    (
        "mlx_lm",
        "python3.12 -m mlx_lm server --model m --trust-remote-code --use-default-chat-template",
        {"model": "m", "trust_remote_code": True, "use_default_chat_template": True},
        {},
    ),
    (
        "mlx_lm",
        "# from the README\nexport HF_HOME=/data\nmlx_lm server --model m --draft-model d \\\r\n"
        "  --num-draft-tokens 2 # fast",
        {"model": "m", "draft_model": "d", "num_draft_tokens": 2},
        {"HF_HOME": "/data"},
    ),
]
