"""Shouted words to lower case, abbreviations left alone.

A word is shouted if it has two or more letters, all capitals. It stays if it is a known
abbreviation, or if nobody could say it as a word (no vowel: RTX, XML), short of drawn-out sounds
(HMM, SHH). Words with a digit (S1, MP3) and single letters (I, A, U.S.) are never touched.
"""

from __future__ import annotations

import re

# With a vowel or a doubled letter; the rest is told by having none. Left out, because as words they
# are far more frequent: AIDS, ID, IN, IT, OR, PIN, WHO.
_KNOWN = """
AAA AARP ABC ABS AC ACLU ADHD AFAIK AFC AFK AGI AGM AI AKA AMD AOL API ASAP ASCII ASL ATM
AUD AWOL AWS BAFTA BIOS BMI BRICS CAPTCHA CBA CCTV CEO CERN CET CFO CGI CIA CIO CNN COBOL
COVID CPA CPI CPU CRISPR CSI CTO CUDA DIY DNA DOA DOB DOJ DOS DUI EBITDA ECB ECG EDT EEG
EFTA EKG EPA ERP ESA ESPN ETA EU EUR EV FAA FAQ FAQS FBI FCC FDA FEMA FIFA FPGA FTSE FYI
GAAP GCSE GIF GMO GNU GOP GPA GPU GPUS GUI HBO HDMI HIPAA HIV HOA HTTP HTTPS IBAN IBM ICU
IDE IDF IEEE II III IKEA IMAX IMDB IMF IMHO IMO IOS IOT IOU IP IPA IPO IQ IRC IRS ISBN ISO
ISP ISS IUD IV IVF IX JPEG JSON LA LAN LED LLC LLM LOL LTE MBA MIDI MIT MLA MOMA MOSFET MOT
MPEG MRI NAACP NAFTA NASA NASCAR NASDAQ NATO NBA NCAA NGO NIH NOAA NSA NVIDIA NY NYC NYPD
NYSE OCD OCR OECD OEM OK OMG OPEC OS OSHA OSX OTC PCI PDA PEMDAS PGA PIR POV PSA PTA PTO QA
QED RAF RAM REPL RIP RNA ROFL ROI ROM ROTC RSS SAS SATA SEO SIM SKU SOS SPCA SSD SSH SSL SSN
SUV SWAT TBA TEFL TESOL TOEFL TSA TTFB TTS TTYL UAE UAV UBS UC UCLA UDP UEFA UFC UFO UFOS UI
UK UN UNESCO UNHCR UNICEF UNIX UPC UPS URI URL URLS US USA USAF USB USD USDA USMC USN USPS
USSR UTC UTF UV UX VAT VI VII VIII VIP VIPS VOIP WIFI WTO WWF WWI WWII WYSIWYG XAI XI XII
XIII XIV XIX XVI XVII XVIII XX XXI YAML YMCA YTD
"""
KNOWN_ABBREVIATIONS = frozenset(_KNOWN.split())

_SHOUTABLE = re.compile(r"(?<![A-Za-z0-9])[A-Z]+(?:'[A-Z]+)*(?![A-Za-z0-9])")
_FOREIGN_WORD = re.compile(r"[^\W\d_]{2,}")
_VOWELS = frozenset("AEIOUY")
_SAID_WITHOUT_VOWELS = frozenset({"MR", "MRS", "MS", "DR", "VS", "TSK", "NTH", "SH", "PST"})
_DOUBLED = re.compile(r"(.)\1")


def lower_shouted(text: str) -> str:
    """ASCII ``text`` with its shouted words in lower case. Applying it twice changes nothing."""
    return _SHOUTABLE.sub(_lower_word, text)


def lower_shouted_foreign(text: str) -> str:
    """The same for words with letters outside ASCII, before they are transliterated.

    Afterwards it would be too late: ``ЩУКА`` becomes ``ShchUKA``.
    """
    return _FOREIGN_WORD.sub(
        lambda m: m[0].lower() if not m[0].isascii() and m[0].isupper() else m[0], text
    )


def _lower_word(match: re.Match[str]) -> str:
    word = match[0]
    head, mark, ending = word.partition("'")
    if len(head) + len(ending) < 2:
        return word
    if len(head) > 1 and _is_abbreviation(head):
        return head + mark + ending.lower()
    if head == "I" and mark:  # I'M, I'LL
        return head + mark + ending.lower()
    return word.lower()


def _is_abbreviation(word: str) -> bool:
    if word in KNOWN_ABBREVIATIONS:
        return True
    if word in _SAID_WITHOUT_VOWELS or not _VOWELS.isdisjoint(word):
        return False
    return _DOUBLED.search(word) is None
