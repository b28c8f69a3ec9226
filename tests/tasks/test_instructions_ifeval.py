"""IFEval's 25 constraints: decisions that the original makes on texts of our own, and where the corrected ones differ.

Each row: constraint, arguments, text, the original's decision. The rows were run through the authors' code.
"""

from __future__ import annotations

import pytest

from onepolicy.tasks.instructions import IFEVAL_IDS, Bound

FIVE = "One is here. Two is there! Is three? Mr. Four left at 5 p.m. on Monday. Five came."
NTH = {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Second"}

ROWS = [
    ("keywords:existence", {"keywords": ["river", "Moon"]}, "The moon over the RIVER.", True),
    ("keywords:existence", {"keywords": ["river", "moon"]}, "The moon over the sea.", False),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": "at least"}, "Cat and cat.", True),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": "less than"}, "Cat and cat.", False),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": "less than"}, "Cat and dog.", True),
    ("keywords:frequency", {"keyword": " cat ", "frequency": 1, "relation": "at least"}, "cat", True),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "We concatenate.", True),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "A CAT!", False),
    ("keywords:forbidden_words", {"forbidden_words": ["cat", "dog"]}, "A cow.", True),
    ("keywords:letter_frequency", {"letter": "A", "let_frequency": 3, "let_relation": "at least"}, "Abba a", True),
    ("keywords:letter_frequency", {"letter": "a", "let_frequency": 3, "let_relation": "less than"}, "Abba a", False),
    ("keywords:letter_frequency", {"letter": "z", "let_frequency": 1, "let_relation": "less than"}, "Abba a", True),
    ("language:response_language", {"language": "de"}, "Das ist ein sehr schönes Haus am großen See.", True),
    ("language:response_language", {"language": "en"}, "Das ist ein sehr schönes Haus am großen See.", False),
    ("language:response_language", {"language": "hi"}, "आइए पहले दस संख्याओं का योग निकालें और फिर दो से भाग दें।", True),
    ("language:response_language", {"language": "mr"}, "आइए पहले दस संख्याओं का योग निकालें और फिर दो से भाग दें।", False),
    ("language:response_language", {"language": "ko"}, "12345 67", True),
    ("length_constraints:number_sentences", {"num_sentences": 5, "relation": "at least"}, FIVE, True),
    ("length_constraints:number_sentences", {"num_sentences": 6, "relation": "at least"}, FIVE, False),
    ("length_constraints:number_sentences", {"num_sentences": 6, "relation": "less than"}, FIVE, True),
    ("length_constraints:number_sentences", {"num_sentences": 5, "relation": "less than"}, FIVE, False),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, "No stop at all", True),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", True),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***\na\n***\nb\n***", True),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n\nb", False),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 3}, "a\n***\n\n***\nb", False),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 1}, "a", True),
    ("length_constraints:number_words", {"num_words": 5, "relation": "at least"}, "It's a state-of-art", True),
    ("length_constraints:number_words", {"num_words": 6, "relation": "less than"}, "It's a state-of-art", False),
    ("length_constraints:number_words", {"num_words": 7, "relation": "at least"}, "It's a state-of-art", False),
    ("length_constraints:nth_paragraph_first_word", NTH, "First.\n\nSecond, here.", True),
    ("length_constraints:nth_paragraph_first_word", NTH, "First.\n\n'second' here.", True),
    ("length_constraints:nth_paragraph_first_word", NTH, "First.\nSecond here.", False),
    ("length_constraints:nth_paragraph_first_word", NTH, "First.\n\nSecond.\n\nThird.", False),
    ("length_constraints:nth_paragraph_first_word", NTH, "First.\n\n\n\nSecond here.", False),
    ("length_constraints:nth_paragraph_first_word", NTH, "First.\n\n\nSecond here.", True),
    ("length_constraints:nth_paragraph_first_word", NTH, "First.\n\n**Second** here.", False),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] and [b]", True),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a [b]", False),
    ("detectable_content:number_placeholders", {"num_placeholders": 1}, "[a\nb]", False),
    ("detectable_content:number_placeholders", {"num_placeholders": 1}, "[]", True),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP. S. More.", True),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nPS: More.", False),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\np.p.s. More.", True),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.S. More.", False),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "So p.s. nothing more.", True),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n* b", True),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "- a\n  * b\n** c", True),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n* b\n---", False),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "1. a\n2. b", False),
    ("detectable_format:constrained_response", {}, "I say: My answer is yes. Sure.", True),
    ("detectable_format:constrained_response", {}, "my answer is yes.", False),
    ("detectable_format:constrained_response", {}, "My answer is yes. My answer is no.", True),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a b* and **c**", True),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "**a** only ** **", False),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "* **a** is one", True),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "*a\nb*", False),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1\na\nSection 2",
        True,
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "SECTION 1\nSECTION 2",
        False,
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1, see Section 1",
        True,
    ),
    ("detectable_format:multiple_sections", {"section_spliter": "Day", "num_sections": 1}, "Day1 a Day 2", True),
    ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', True),
    ("detectable_format:json_format", {}, "{'a': 1}", False),
    ("detectable_format:json_format", {}, '{"a": 1} and more', False),
    ("detectable_format:json_format", {}, "17", True),
    ("detectable_format:title", {}, "<<A title>>\ntext", True),
    ("detectable_format:title", {}, "<< >>", False),
    ("detectable_format:title", {}, "<A title>", False),
    ("detectable_format:title", {}, "<<A\ntitle>>", False),
    ("combination:two_responses", {}, "One.\n******\nTwo.", True),
    ("combination:two_responses", {}, "One.\n******\nOne.", False),
    ("combination:two_responses", {}, "One.\n******\n\n******\nTwo.", False),
    ("combination:two_responses", {}, "******One.\n******\nTwo.******", True),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "  SAY it. Then more.", True),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "You said: Say it.", False),
    ("startend:end_checker", {"end_phrase": "The end."}, 'And so: "the END."\n', True),
    ("startend:end_checker", {"end_phrase": "The end."}, "The end. Really.", False),
    ("startend:quotation", {}, ' "a b" ', True),
    ("startend:quotation", {}, "“a b”", False),
    ("startend:quotation", {}, '"', False),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 3, "capital_relation": "at least"},
        "I AM well-KNOWN, IT'S",
        True,
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 5, "capital_relation": "at least"},
        "I AM well-KNOWN, IT'S",
        False,
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "less than"},
        "NASA-JPL rocks",
        True,
    ),
    ("change_case:english_capital", {}, "THIS IS A WHOLE SENTENCE OF ENGLISH WORDS AND NOTHING ELSE.", True),
    ("change_case:english_capital", {}, "THIS is A WHOLE SENTENCE OF ENGLISH WORDS.", False),
    ("change_case:english_lowercase", {}, "this is a whole sentence of english words and nothing else.", True),
    ("change_case:english_lowercase", {}, "This is a whole sentence of english words.", False),
    ("change_case:english_lowercase", {}, "das ist ein sehr schönes haus am großen see.", False),
    ("punctuation:no_comma", {}, "a; b", True),
    ("punctuation:no_comma", {}, "1,000", False),
    ("punctuation:no_comma", {}, "a、b，c", True),
]

CORRECTED = [
    ("length_constraints:nth_paragraph_first_word", NTH, "First.\n\n\n\nSecond here.", True),
    ("length_constraints:nth_paragraph_first_word", NTH, "First.\n\n**Second** here.", True),
    ("length_constraints:nth_paragraph_first_word", NTH, "First.\n\nThird here.", False),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "* **a** is one", False),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "2 * 3 * 4 or 2*3*4", False),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a b* and **c**", True),
    ("language:response_language", {"language": "ko"}, "12345 67", False),
    ("change_case:english_capital", {}, "DAS IST EIN SEHR SCHÖNES HAUS AM GROSSEN SEE.", False),
    ("change_case:english_capital", {}, "THIS IS A WHOLE SENTENCE OF ENGLISH WORDS.", True),
    ("keywords:existence", {"keywords": ["cat"]}, "We concatenate.", False),
    ("keywords:existence", {"keywords": ["C++", "a.b"]}, "In C++ a.b is", True),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": "at least"}, "A cat may concatenate.", False),
    ("keywords:forbidden_words", {"forbidden_words": ["C++"]}, "We write C++ here.", False),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "So p.s. nothing more.", False),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\n\nP.S. More.", True),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\n\nPS: More.", True),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        "Bye.\nP.S. More.\n\nAnd another paragraph.",
        False,
    ),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n* b\n---", True),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "-5 degrees", False),
    ("detectable_format:constrained_response", {}, "My answer is yes. My answer is no.", False),
    ("detectable_format:constrained_response", {}, "My answer is yes.", True),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1, see Section 1",
        False,
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1\na\n## Section 2\nb",
        True,
    ),
    ("detectable_format:json_format", {}, "17", False),
    ("detectable_format:json_format", {}, '{"a": NaN}', False),
    ("detectable_format:json_format", {}, "[1]", True),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "Say it.", False),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "Say it. Done.", True),
]


@pytest.mark.parametrize(("name", "args", "text", "followed"), ROWS)
def test_the_originals_decision(name, args, text, followed):
    assert Bound(name, args).follows(text) is followed


@pytest.mark.parametrize(("name", "args", "text", "followed"), CORRECTED)
def test_the_corrected_decision(name, args, text, followed):
    assert Bound(name, args).follows(text, "corrected") is followed


def test_every_constraint_has_both_answers_in_the_table():
    for name in IFEVAL_IDS:
        assert {row[3] for row in ROWS if row[0] == name} == {True, False}, name


def test_a_letter_that_is_none_is_counted_as_it_is():
    """The authors' file asks for `#` and `!`; their code then counts a letter drawn at random."""
    bound = Bound("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": "at least"})
    assert [bound.follows(text) for text in ("# a # b", "# a")] == [True, False]


def test_whole_numbers_may_come_as_floats_and_none_means_not_given():
    """So the hub's table gives them: one column for each argument of any constraint."""
    bound = Bound(
        "length_constraints:number_words", {"num_words": 3.0, "relation": "at least", "keywords": None, "letter": None}
    )
    assert dict(bound.args) == {"num_words": 3, "relation": "at least"}
