"""Parameters and multiply-adds of every network in its published configuration, to the digits that are printed."""

import json

import pytest
import torch
from torch import nn

from medapp.cli.main import main
from medapp.networks.architectures.sgsgan import Discriminator, Segmenter
from medapp.networks.cost import DEFAULTS, Case, case_cost, network_cost
from medapp.networks.registry import ARCHITECTURES, build_network


def _giga(macs, digits):
    return round(macs / 1e9, digits)


def test_restore_rwkv():
    cost = case_cost(Case("restore_rwkv", (1, 1, 128, 128)))

    assert cost.parameters == 27_996_737
    assert _giga(cost.weight_macs, 3) == 37.270
    assert _giga(cost.thop, 4) == 37.4585
    assert round(cost.wkv_updates / 1e6, 2) == 47.19


def test_restore_rwkv_with_merged_kernels_has_the_published_size():
    network = build_network("restore_rwkv", {})
    branches = sum(p.numel() for name, p in network.named_parameters() if "omni_shift" in name)
    merged = sum(p.numel() for name, p in network.named_parameters() if name.endswith("conv5x5.weight"))
    deployed = sum(p.numel() for p in network.parameters()) - branches + merged

    assert deployed == 27_846_625


def test_amir():
    cost = case_cost(Case("amir", (1, 1, 128, 128)))

    assert cost.parameters == 23_540_498
    assert _giga(cost.thop, 4) == 31.7645
    assert _giga(cost.linear_macs, 2) == 0.92  # two of four experts
    assert _giga(cost.attention_macs + cost.other_macs, 2) == 3.05
    assert _giga(cost.macs, 3) == 34.816


@pytest.mark.parametrize(
    ("case", "parameters", "thop", "macs", "digits"),
    [
        (Case("drmc", (1, 1, 128, 128), {"dims": 2}), 623_637, 9.9154, 10.0034, 4),
        (Case("drmc", (1, 1, 128, 128), {"dims": 2, "res_num": 5}), 519_903, 8.266, 8.339, 3),
        (Case("drmc", (1, 1, 32, 32, 32)), 539_487, 17.17, 17.32, 2),
        pytest.param(Case("drmc", (1, 1, 64, 64, 64)), 539_487, 137.39, 138.56, 2, marks=pytest.mark.slow),
    ],
)
def test_drmc(case, parameters, thop, macs, digits):
    cost = case_cost(case)

    assert cost.parameters == parameters
    assert _giga(cost.thop, digits) == thop
    assert _giga(cost.macs, digits) == macs


@pytest.mark.parametrize(
    ("side", "convolutions", "linear", "attention", "total"),
    [(64, 3.99, 0.81, 0.43, 5.23), (128, 15.97, 3.22, 6.54, 25.73)],
)
def test_rat_whose_image_is_one_region_costs_what_the_dense_form_does(side, convolutions, linear, attention, total):
    cost = case_cost(Case("rat", (1, 1, side, side)))

    assert cost.parameters == 15_945_025
    assert _giga(cost.convolution_macs, 2) == convolutions
    assert _giga(cost.linear_macs, 2) == linear
    assert _giga(cost.attention_macs, 2) == attention
    assert _giga(cost.macs, 2) == total


def test_rat_with_four_regions_attends_a_quarter():
    image, quarters = torch.zeros(1, 1, 64, 64), torch.zeros(1, 64, 64)
    quarters[:, 32:] += 2
    quarters[:, :, 32:] += 1
    small = {"width": 16, "middle_blk_num": 3, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]}
    network = build_network("rat", small)
    one, four = (network_cost(network, image, region_map=regions) for regions in (image[:, 0], quarters))
    tokens, channels, layers, window = 256, 64, 3, 16

    assert one.attention_macs == layers * 2 * tokens * channels * (tokens + window)
    assert four.attention_macs == layers * 2 * tokens * channels * (tokens // 4 + window)
    assert four.weight_macs == one.weight_macs


@pytest.mark.parametrize(
    ("case", "parameters", "macs", "digits"),
    [
        (Case("sgsgan", (1, 1, 128, 128), {"dims": 2}), 2_489_833, 2.65, 2),
        (Case("sgsgan", (1, 1, 64, 64, 64), {"dims": 3}), 6_379_561, 67.7, 1),
    ],
)
def test_sgsgan_style(case, parameters, macs, digits):
    cost = case_cost(case)

    assert cost.parameters == parameters
    assert _giga(cost.macs, digits) == macs


@pytest.mark.parametrize(
    ("dims", "side", "digits", "of_critic", "of_segmenter"), [(2, 128, 2, 0.41, 0.66), (3, 64, 1, 4.0, 17.0)]
)
def test_what_trains_sgsgan_style(dims, side, digits, of_critic, of_segmenter):
    image = torch.zeros(1, 1, *[side] * dims)
    critic = network_cost(Discriminator(dims), image, candidate=image)
    segmenter = network_cost(Segmenter(5, dims), image)

    assert _giga(critic.macs, digits) == of_critic
    assert _giga(segmenter.macs, digits) == of_segmenter


@pytest.mark.parametrize(
    ("channels", "side", "parameters", "whole", "matting"),
    [
        (1, 128, 6_782_347, 68.6, 58.2),
        pytest.param(3, 256, 6_784_715, 274.5, 232.9, marks=pytest.mark.slow),
    ],
)
def test_medical_matting(channels, side, parameters, whole, matting):
    shape, config = (1, channels, side, side), {"input_channels": channels}
    cost = case_cost(Case("medical_matting", shape, config))
    without = case_cost(Case("medical_matting", shape, {**config, "use_matting": False}))

    assert cost.parameters == parameters
    assert _giga(2 * cost.macs, 1) == whole
    assert _giga(2 * (cost.macs - without.macs), 1) == matting


@pytest.mark.parametrize(
    ("size", "gflop", "digits"), [((228, 304), 72.3, 1), pytest.param((240, 1216), 288, 0, marks=pytest.mark.slow)]
)
def test_pddm_style_without_its_attention_products(size, gflop, digits):
    cost = case_cost(Case("pddm", (1, 3, *size), {"local_prior": False}))

    assert cost.parameters == 24_343_663
    assert _giga(2 * (cost.weight_macs + cost.other_macs), digits) == gflop
    assert cost.attention_macs > 0


def test_pddm_style_with_its_local_prior_has_300_more_parameters():
    network = build_network("pddm", {})
    assert sum(p.numel() for p in network.parameters()) == 24_343_963


def test_the_baselines_cost_what_their_papers_print():
    assert _giga(case_cost(Case("nafnet", (1, 3, 256, 256), {"img_channel": 3})).weight_macs, 0) == 16
    assert _giga(case_cost(Case("restormer", (1, 3, 256, 256), {"inp_channels": 3})).weight_macs, 2) == 140.99


def test_the_table_names_every_architecture_once_a_dimension():
    assert {case.architecture for case in DEFAULTS} == set(ARCHITECTURES)
    assert len({(case.architecture, len(case.shape)) for case in DEFAULTS}) == len(DEFAULTS)


def test_layers_that_are_counted_by_hand():
    network = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2),  # 8 x 5 x 5 values of 2 x 9 products
        nn.InstanceNorm2d(8),  # 2 for each of 8 x 25 values
        nn.ConvTranspose2d(8, 6, 2, stride=2),  # 8 x 25 values into 6 x 4 each
        nn.Flatten(),
        nn.Linear(600, 10, bias=False),
        nn.BatchNorm1d(10),
    )
    cost = network_cost(network, torch.zeros(1, 4, 9, 9))

    assert cost.convolution_macs == 8 * 25 * 18 + 8 * 25 * 24
    assert cost.linear_macs == 6000
    assert cost.norm_ops == 2 * 8 * 25 + 4 * 10
    assert cost.macs == cost.convolution_macs + 6000


def test_the_command_prints_a_table(monkeypatch, capsys):
    monkeypatch.setattr("medapp.networks.cost.DEFAULTS", (Case("rat", (1, 1, 16, 32), {"width": 16}),))

    assert main(["models", "cost"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| RAT | 1 × 16 × 32 | ")
    assert len({line.count("|") for line in lines}) == 1

    assert main(["models", "cost", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["macs"] == row["weight_macs"] + row["attention_macs"] + row["other_macs"] > 0
