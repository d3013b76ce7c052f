import pytest
import torch

from cvmh.models.zoo import create_model


@pytest.fixture(scope="session")
def nano():
    torch.manual_seed(0)
    return create_model("cvmh_unet_nano").eval()
