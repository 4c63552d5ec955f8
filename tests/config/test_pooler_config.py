"""--pooler-config: what it may say, and what is refused by name."""

from __future__ import annotations

import pytest

from headrace.config.engine import EngineConfig
from headrace.config.pooler import PoolerConfig, read_pooler_config
from headrace.core.errors import ConfigError
from headrace.core.pooling import PoolingMode, PoolingTask


def test_nothing_given():
    assert read_pooler_config({}) == PoolerConfig()


def test_everything_given():
    given = {
        "seq_pooling_type": "mean",
        "tok_pooling_type": "ALL",
        "use_activation": False,
        "dimensions": 64,
        "task": "token_embed",
        "logit_mean": 1,
        "logit_sigma": 2.5,
        "enable_chunked_processing": False,
        "step_tag_id": None,
    }

    assert read_pooler_config(given) == PoolerConfig(
        mode=PoolingMode.MEAN,
        task=PoolingTask.TOKEN_EMBED,
        use_activation=False,
        dimensions=64,
        logit_mean=1.0,
        logit_sigma=2.5,
    )


@pytest.mark.parametrize("name", ["normalize", "softmax", "activation"])
def test_old_names_of_use_activation(name):
    assert read_pooler_config({name: True}).use_activation is True


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"poolingtype": "CLS"}, "unknown key 'poolingtype'; known: pooling_type, "),
        ({"pooling_type": "MEDIAN"}, "pooling_type must be CLS or LAST or MEAN or ALL, got 'MEDIAN'"),
        ({"pooling_type": "CLS", "seq_pooling_type": "LAST"}, "contradict each other"),
        ({"tok_pooling_type": "STEP"}, "tok_pooling_type must be ALL, got 'STEP'"),
        ({"step_tag_id": 5}, "step_tag_id is not implemented"),
        ({"enable_chunked_processing": True}, "enable_chunked_processing is not implemented"),
        ({"task": "plugin"}, "task must be one of embed, classify"),
        ({"use_activation": "yes"}, "use_activation must be true or false"),
        ({"use_activation": True, "softmax": False}, "use_activation and softmax contradict each other"),
        ({"dimensions": 0}, "dimensions must be at least 1"),
        ({"logit_mean": "a"}, "logit_mean must be a number"),
        ({"logit_sigma": 0}, "logit_sigma must not be 0"),
    ],
)
def test_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        EngineConfig(pooler_config=given)
