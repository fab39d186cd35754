import pytest

from common import taxonomy
from common.errors import ConfigError

EDGES = (("R", "A"), ("R", "B"), ("A", "A1"), ("A", "A2"), ("A1", "a"), ("A1", "b"), ("A2", "c"), ("A2", "d"))
EDGES += tuple(("B", leaf) for leaf in "efgh")
CLASSES = tuple("abcdefgh")


def test_children_stand_in_the_order_of_the_class_list_whatever_the_order_of_edges():
    backwards = taxonomy.build(EDGES[::-1], CLASSES)
    assert backwards.children == taxonomy.build(EDGES, CLASSES).children
    assert list(backwards.children) == ["R", "A", "B", "A1", "A2"]
    assert taxonomy.build(EDGES, tuple("hgfedcba")).children["R"] == ("B", "A")


def test_targets_number_the_child_that_holds_the_class():
    tree = taxonomy.build(EDGES, CLASSES)
    assert tree.targets("A").tolist() == [0, 0, 1, 1, -1, -1, -1, -1]
    assert tree.targets("B").tolist() == [-1, -1, -1, -1, 0, 1, 2, 3]
    assert tree.path("c") == ("R", "A", "A2", "c")
    assert (tree.is_bottom("B"), tree.is_bottom("A")) == (True, False)


def test_nodes_with_one_child_are_collapsed_and_named_but_a_class_never_is():
    edges = (("top", "R"), *EDGES[:-4], ("B", "only"), *(("only", leaf) for leaf in "efgh"))
    tree = taxonomy.build(edges, CLASSES)
    assert (tree.root, tree.children["R"], set(tree.collapsed)) == ("R", ("A", "only"), {"top", "B"})
    alone = taxonomy.build((("R", "x"), ("R", "y"), ("x", "a"), ("y", "b")), ("a", "b"))
    assert alone.children == {"R": ("a", "b")}


def test_a_node_with_two_parents_keeps_the_first_and_the_cut_is_told(caplog):
    taxonomy.build.cache_clear()  # it is told once in a process
    tree = taxonomy.build((*EDGES, ("A", "e")), CLASSES)
    assert tree.cut == (("A", "e"),)
    assert tree.parent["e"] == "B"
    assert "several parents, of which the first counts: 'e' stays under 'B', not 'A'" in caplog.text


def test_a_subtree_has_only_the_classes_below():
    tree = taxonomy.build(EDGES, CLASSES).subtree("A")
    assert (tree.classes, tuple(tree.children)) == (("a", "b", "c", "d"), ("A", "A1", "A2"))
    assert tree.targets("A1").tolist() == [0, 1, -1, -1]


@pytest.mark.parametrize(
    ("edges", "classes", "sentence"),
    [
        ((), CLASSES, "has no edges"),
        ((*EDGES, ("S", "z")), CLASSES, "must have one root, got 2: 'R', 'S'"),
        ((("R", "a"), ("x", "y"), ("y", "x")), ("a",), "has a cycle: 'y' <- 'x' <- 'y'"),
        ((("x", "y"), ("y", "x")), ("x",), "has a cycle: 'y' <- 'x' <- 'y'"),
        ((("R", "R"), ("R", "a")), ("a",), "has a cycle: 'R' is its own parent"),
        ((*EDGES, ("B", "z")), CLASSES, "leaf 'z' of the taxonomy is no class of the run"),
        (EDGES, (*CLASSES, "A"), "class 'A' is an inner node"),
        (EDGES, (*CLASSES, "z"), "class 'z' is not in the taxonomy"),
        (EDGES, (*CLASSES, "a"), "the class list names 'a' twice"),
    ],
)
def test_each_broken_tree_is_refused_by_the_node_at_fault(edges, classes, sentence):
    with pytest.raises(ConfigError) as refused:
        taxonomy.build(edges, classes)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "parent,child\nR,a\nR,b\n"),
        ("t.txt", "# is-a\nR a\n\nR b\n"),
        ("t.json", '{"nodes": [], "links": [{"source": "R", "target": "a"}, {"source": "R", "target": "b"}]}'),
    ],
)
def test_the_three_file_forms_give_the_same_edges(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert taxonomy.load(tmp_path / name) == (("R", "a"), ("R", "b"))


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("t.csv", "R,a\nR,b,c\n", "line 2: expected `parent,child`"),
        ("t.json", '{"links": [{"from": 1}]}', "no node-link JSON"),
    ],
)
def test_an_unreadable_taxonomy_file_says_where(tmp_path, name, text, sentence):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as refused:
        taxonomy.load(tmp_path / name)
    assert sentence in str(refused.value)


def test_coarse_labels_make_a_tree_of_two_levels():
    edges = taxonomy.from_coarse(("cat", "oak", "dog", "elm"), ("animal", "plant", "animal", "plant"))
    tree = taxonomy.build(edges, ("cat", "oak", "dog", "elm"))
    assert tree.children == {"root": ("animal", "plant"), "animal": ("cat", "dog"), "plant": ("oak", "elm")}


def test_the_drawing_shows_every_node_with_its_note():
    tree = taxonomy.build((("R", "A"), ("R", "c"), ("A", "a"), ("A", "b")), ("a", "b", "c"))
    assert taxonomy.drawing(tree, {"A": "0.9"}) == "R\n├─ A  0.9\n│  ├─ a\n│  └─ b\n└─ c"
