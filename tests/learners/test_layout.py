import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from common.method import Spec
from common.payloads import Array
from edge_client.learners.layout import Layout

SHAPES = st.lists(st.lists(st.integers(1, 7), max_size=3).map(tuple), min_size=1, max_size=6)


@given(SHAPES, st.data())
def test_runs_cover_exactly_the_chosen_tensors(shapes: list[tuple[int, ...]], data: st.DataObject) -> None:
    layout = Layout({f"t{i}": Spec(shape) for i, shape in enumerate(shapes)})
    chosen = data.draw(st.sets(st.sampled_from(list(layout.shapes))))
    flat = np.zeros(layout.size, np.float32)
    for run in layout.runs(chosen):
        flat[run] += 1
    for name, view in layout.views(flat).items():
        assert view.shape == layout.shapes[name]
        assert (view == (name in chosen)).all()


def test_neighbours_are_one_run_and_buffers_have_no_place() -> None:
    layout = Layout({"a": Spec((3,)), "n": Spec((5,), kind="buffer"), "b": Spec((20,)), "c": Spec((1,))})
    assert list(layout.shapes) == ["a", "b", "c"]
    assert len(layout.runs(["a", "b", "c"])) == 1
    assert len(layout.runs(["a", "c", "n", "unknown"])) == 2


def test_arrays_come_back_as_they_went_in() -> None:
    layout = Layout({"a": Spec((2, 3)), "b": Spec((17,)), "c": Spec(())})
    arrays: dict[str, Array] = {"a": np.arange(6, dtype=np.float32).reshape(3, 2).T, "c": np.array(7, np.float32)}
    flat = layout.flat(arrays)
    views = layout.views(flat)
    np.testing.assert_array_equal(views["a"], arrays["a"])
    assert views["c"] == 7
    assert not views["b"].any()
    assert all(layout.place(name).start % 16 == 0 for name in layout.shapes)
