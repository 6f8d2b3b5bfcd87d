from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent.config.bearings import BEARINGS, geometry_orders
from asd_agent.config.kinematics import Bearing, Mechanism
from asd_agent.mechanism import lines


def config(**keys) -> Mechanism:
    return msgspec.convert(keys, Mechanism)


def test_a_6205_as_the_literature_has_it():
    orders = Bearing(name="DE", type="6205").fault_orders()
    assert (orders.bpfo, orders.bpfi) == pytest.approx((3.5848, 5.4152), abs=1e-3)
    assert (orders.bsf2, orders.ftf) == pytest.approx((4.7135, 0.39828), abs=1e-3)


@settings(max_examples=50, deadline=None)
@given(st.integers(6, 20), st.floats(0.1, 0.3), st.floats(0, 40))
def test_race_orders_add_up_to_the_number_of_balls(balls, ratio, angle):
    for rotating in ("inner", "outer"):
        orders = geometry_orders(balls, ratio, 1.0, angle, rotating)
        assert orders.bpfo + orders.bpfi == pytest.approx(balls)
        assert orders.bpfo == pytest.approx(balls * (orders.ftf if rotating == "inner" else 1 - orders.ftf))


@pytest.mark.parametrize("name", sorted(BEARINGS))
def test_every_bearing_of_the_table_can_be_built(name):
    balls, ball_d, pitch_d, angle = BEARINGS[name]
    by_geometry = Bearing(name="x", balls=balls, ball_d=ball_d, pitch_d=pitch_d, angle_deg=angle).fault_orders()
    assert Bearing(name="x", type=name).fault_orders() == by_geometry
    assert 0.3 < by_geometry.ftf < 0.5


def test_orders_of_a_data_sheet_name_the_ball_spin_once():
    orders = Bearing(
        name="x", orders=msgspec.convert({"bpfo": 3.585, "bpfi": 5.415, "bsf": 2.357}, _orders())
    ).fault_orders()
    assert orders.bsf2 == pytest.approx(4.714)
    assert orders.ftf == pytest.approx(3.585 / 9)


def _orders() -> type:
    from asd_agent.config.kinematics import BearingOrders

    return BearingOrders


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"bearings": [{"name": "DE"}]}, "give one of balls"),
        ({"bearings": [{"name": "DE", "type": "6205", "balls": 9}]}, "give one of balls"),
        ({"bearings": [{"name": "DE", "balls": 9, "ball_d": 8.0}]}, "needed together"),
        ({"bearings": [{"name": "DE", "balls": 20, "ball_d": 8.0, "pitch_d": 39.0}]}, "do not fit"),
        ({"bearings": [{"name": "DE", "type": "123"}]}, "not in the table"),
        ({"bearings": [{"name": "DE", "orders": {"bpfo": 5.4, "bpfi": 3.6}}]}, "swapped"),
        ({"bearings": [{"name": "DE", "orders": {"bpfo": 3.6, "bpfi": 5.2}}]}, "not a whole number"),
        ({"bearings": [{"name": "DE", "type": "6205", "shaft": "out"}]}, "no shaft 'out'; known: shaft"),
        ({"gears": [{"name": "a", "teeth": 20}, {"name": "a", "teeth": 30}]}, "used twice"),
        ({"shaft_range_hz": [30, 20]}, "30 is not below 20"),
        ({"shaft_hz": 50, "shaft_range_hz": [20, 30]}, "outside shaft_range_hz"),
        ({"poles": 3, "mains_hz": 50}, "even number"),
        ({"poles": 4}, "mains_hz is needed"),
        ({"belts": [{"name": "V", "pulley_d": 500, "length": 1200}]}, "shorter than the pulley"),
        ({"shaft_rpm": 1500}, "unknown field"),
    ],
)
def test_mistakes_are_named(keys, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        config(**keys)


def test_lines_of_a_gear_and_a_second_shaft():
    found = lines.groups(
        config(shafts=[{"name": "out", "ratio": 0.4}], gears=[{"name": "G", "teeth": 20, "wheel_teeth": 50}])
    )
    by_name = {g.name: g for g in found}
    assert by_name["G.mesh2"].lines[0].hz(25.0) == pytest.approx(1000.0)
    wheel = sorted(line.hz(25.0) for line in by_name["G.sidebands_wheel"].lines)
    assert wheel[:2] == pytest.approx([490, 510])
    far = sorted(line.hz(25.0) for line in by_name["G.sidebands_far_wheel"].lines)
    assert far[:4] == pytest.approx([470, 480, 520, 530])
    assert by_name["out.1x"].lines[0].hz(25.0) == pytest.approx(10.0)


def test_pole_pass_sidebands_of_a_four_pole_motor():
    """50 Hz, 4 poles: 25 Hz synchronous, at 24.5 Hz a slip of 2 % and a pole pass of 2 Hz."""
    bars = next(g for g in lines.groups(config(mains_hz=50, poles=4)) if g.name == "motor.bars")
    assert sorted(line.hz(24.5) for line in bars.lines) == pytest.approx([20.5, 22.5, 26.5, 28.5])
    assert bars.spacing is not None
    assert bars.spacing.hz(24.5) == pytest.approx(2.0)


def test_one_slip_moves_the_races_in_opposite_directions():
    trains = {t.kind: t for t in lines.trains(config(bearings=[{"name": "DE", "type": "6205"}]))}
    ftf = trains["ftf"].order
    for slip in lines.SLIP:
        outer, inner = 9 * ftf * (1 - slip), 9 * (1 - ftf * (1 - slip))
        low, high = trains["bpfo"].slip
        assert 1 + low - 1e-9 <= outer / trains["bpfo"].order <= 1 + high + 1e-9
        low, high = trains["bpfi"].slip
        assert 1 + low - 1e-9 <= inner / trains["bpfi"].order <= 1 + high + 1e-9


def test_blades_take_the_name_of_their_shaft_order():
    names = [g.name for g in lines.groups(config(blades=[{"name": "fan", "count": 5}]))]
    assert "fan.blade1" in names
    assert "shaft.5x" not in names
    assert "shaft.4x" in names
