"""Is a caption English? By its script and its function words: no weights, no downloads, a few microseconds a word.

It tells running English from running text of other languages. It cannot judge what has no function words: names,
keyword lists, titles of few words. Those pass as English, because nothing speaks against it. docs/caption-rules.md has
the measured accuracy by language.
"""

from collections.abc import Sequence
from typing import Final

_PASSAGE_WORDS: Final = 20

_ENGLISH_LISTED: Final = """
    the a an and or of to in on at by for with from into onto over under above below behind between beside near next
    through across along around against towards toward up down out off as is are was were be been being am has have had
    having do does did this that these those there here it its it's he she they them their his her him hers who whom
    whose which what where when while why how not no nor but if then than so because although though also both each
    every either another other others some any all most more many much few several such same own only very too just
    can could will would may might must shall should i you we us our your my me about after before during until within
    without upon among amid seen appears appear seem seems there's that's he's she's isn't doesn't don't
"""
_ENGLISH: Final = frozenset(_ENGLISH_LISTED.split())

_OTHERS: Final = {
    name: frozenset(listed.split()) - _ENGLISH
    for name, listed in {
        "German": """der das und ist ein eine einen einem einer eines des dem den mit auf von zu im am sind nicht auch
            sich für aus bei nach wie oder aber über unter vor zwischen neben wird werden hat haben er sie wir ihr ihre
            seine seinem dass als noch nur sehr durch gegen ohne""",
        "French": """le la les un une des du de et est dans sur avec pour par qui que ne pas au aux ce cette ces son sa
            ses leur leurs elle il ils elles sont été plus mais ou où sous entre vers chez deux tout très être se d'un
            d'une l'on qu'il c'est en""",
        "Spanish": """el la los las un una unos unas de del y en con por para que se su sus es está están son fue como
            más pero no lo al sobre entre hay también muy este esta estos estas desde hasta ha sin o""",
        "Italian": """il lo la gli le un uno una di del della dello dei delle degli e è in nel nella con per che non
            si su sul sulla da dal dalla al alla sono come più ma anche questo questa loro ha ed suo sua""",
        "Portuguese": """o os um uma uns umas de do da dos das e em no na nos nas com por para que se seu sua são é
            está como mais mas não ao à às pelo pela foi também sobre entre este esta ele ela""",
        "Dutch": """de het een en van in op met voor te zijn is aan bij naar uit door over onder niet ook maar dat die
            deze dit er wordt werd hij zij ze haar hun als om tot tegen twee heeft hebben staat""",
        "Swedish": """och en ett den det de som på av för med till är var från har inte om sig han hon över under
            vid genom mot detta denna deras sin sitt sina ut upp kan skulle""",
        "Danish or Norwegian": """og en et den det de som på af av for med til er var fra har ikke om sig seg han hun
            ved gennem gjennom mod mot dette denne deres sin sit sitt ud ut op opp blev ble eller""",
        "Finnish": """ja on ei se hän ovat oli että joka jossa kun mutta myös kuin niin sen tämä hänen ollut sekä tai
            ole jonka siitä vain kaksi mukaan kanssa päällä vieressä""",
        "Polish": """i w we z ze na do nie się jest są to że o od po za przez dla jak był była było oraz który która
            które tego jego jej ich ale przy pod nad ma być także dwa""",
        "Czech": """a v ve s se z ze na do je jsou to že o od po za pro jak byl byla bylo který která které jeho její
            jejich ale při pod nad má být také i k ke si už jako dva""",
        "Turkish": """ve bir bu da de ile için olan olarak çok daha gibi ne o en kadar sonra var içinde üzerinde her
            ama ise veya değil onun iki tarafından olduğu""",
        "Indonesian or Malay": """dan yang di ke dari dengan untuk pada ini itu adalah dalam sebuah seorang tidak akan
            oleh juga atau ada telah sebagai mereka dia ia karena para tersebut bisa dapat dua""",
        "Romanian": """și si de la în cu pe un o care este sunt din pentru nu se mai a au fost ce sau lui ale al unei
            unui iar prin fi dar ca""",
        "Hungarian": """a az és egy hogy nem is van volt ez meg de vagy csak már mint ami azt itt ott két alatt között
            mellett után fel el ki""",
        "Vietnamese": """và của là một có trong được cho với các những người này đã không khi trên ở từ đang vào
            ra đến""",
    }.items()
}

_PLAIN_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def ascii_letters(text: str) -> float:
    """The share of the letters of `text` that are ASCII; 1 if there is none."""
    if text.isascii():
        return 1.0
    letters = [c for c in text if c.isalpha()]
    return sum(c in _PLAIN_LETTERS for c in letters) / len(letters) if letters else 1.0


def function_words(found: Sequence[str]) -> float:
    """The share of `found` (lower-case words) that are function words of English; 1 if there is no word."""
    return sum(word in _ENGLISH for word in found) / len(found) if found else 1.0


def foreign_share(found: Sequence[str]) -> float:
    """The share of `found` (lower-case words) that stand in passages (of 20 words, or the rest) of another language.

    A passage is of another language if at least two of the other's function words are in it, and more than there are of
    English.
    """
    foreign = 0
    passages = max(1, round(len(found) / _PASSAGE_WORDS))
    for i in range(passages):
        passage = found[i * len(found) // passages : (i + 1) * len(found) // passages]
        distinct = set(passage)
        english = max(1, len(distinct & _ENGLISH))
        if any(len(distinct & listed) > english for listed in _OTHERS.values()):
            foreign += len(passage)
    return foreign / len(found) if found else 0.0
