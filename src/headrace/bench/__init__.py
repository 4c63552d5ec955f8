"""Measures servers that speak OpenAI's API, over HTTP; `offline.py` measures the engine without one."""
