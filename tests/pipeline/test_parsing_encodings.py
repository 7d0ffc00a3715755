"""Text files in the encodings of their time and place, without a word of which it is."""

import pytest

from penstock.pipeline.parsing.html import split_head
from penstock.pipeline.parsing.text import decode

SENTENCES = {
    "zh_hans": "水闸每天早上六点打开。值班员检查水位，并记入登记簿。",
    "zh_hant": "水閘每天早上六點打開。值班員檢查水位，並記入登記簿。",
    "ja": "水門は毎朝六時に開きます。係員は水位を確認し、記録簿に書き込んでください。",
    "ja_kana": "カタログに記載されているデータはサンプルです。",
    "ko": "수문은 매일 아침 여섯 시에 열립니다. 담당자는 수위를 확인하고 기록부에 적어야 합니다.",
    "ru": "Шлюз открывается каждое утро в шесть часов. Дежурный проверяет уровень воды.",
    "uk": "Шлюз відкривається щоранку о шостій годині. Черговий перевіряє рівень води.",
    "pl": "Śluza otwiera się każdego ranka o szóstej; więcej informacji można znaleźć później.",
    "el": "Ο υδατοφράκτης ανοίγει κάθε πρωί στις έξι. Ο φύλακας ελέγχει τη στάθμη του νερού.",
    "tr": "Kapak her sabah saat altıda açılır. Görevli su seviyesini kontrol eder ve değişiklikleri bildirir.",
    "he": "הסכר נפתח כל בוקר בשש. השומר בודק את מפלס המים ורושם אותו בספר.",
    "de": "Die Schleuse öffnet jeden Morgen um sechs. Größere Änderungen meldet der Wärter über Funk.",
    "fr": "L’écluse s’ouvre chaque matin à six heures. Le gardien vérifie le niveau d’eau à côté de la fenêtre.",
}
WRITTEN = [
    *[("zh_hans", "gb18030"), ("zh_hans", "gbk"), ("zh_hant", "big5"), ("ja", "shift_jis"), ("ja_kana", "cp932")],
    *[("ja", "euc_jp"), ("ja", "iso2022_jp"), ("ko", "euc_kr"), ("ko", "cp949"), ("ru", "cp1251"), ("ru", "koi8_r")],
    *[("uk", "cp1251"), ("pl", "cp1250"), ("el", "cp1253"), ("tr", "cp1254"), ("he", "cp1255")],
    *[("de", "cp1252"), ("fr", "cp1252"), ("de", "utf-16"), ("ru", "utf-8")],
]


@pytest.mark.parametrize(("language", "encoding"), WRITTEN)
def test_a_sentence_is_read_as_it_was_written(language: str, encoding: str) -> None:
    text = SENTENCES[language]
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize(("language", "encoding"), WRITTEN)
def test_a_long_text_is_read_by_its_beginning(language: str, encoding: str) -> None:
    text = "\n".join([SENTENCES[language]] * 2000)
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize(("label", "encoding"), [("shift_jis", "cp932"), ("euc-kr", "cp949"), ("big5", "big5hkscs")])
def test_a_page_means_what_browsers_take_its_label_for(label: str, encoding: str) -> None:
    letters = {"shift_jis": "①㈱髙", "euc-kr": "똠방각하", "big5": "香港㗎"}[label]
    page = f'<meta charset="{label}"><p>{letters}</p>'
    assert letters in split_head(page.encode(encoding))[0]


def test_a_single_accent_is_western() -> None:
    assert decode("Caf\xe9 au lait".encode("cp1252")) == "Café au lait"


def test_typographic_marks_in_english_are_western() -> None:
    text = "The warden\u2019s book says \u201copen\u201d \u2013 nothing else."
    assert decode(text.encode("cp1252")) == text
