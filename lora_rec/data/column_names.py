"""What column and file names say: the words for a user, an item, a time, a rating, in usual forms."""

from __future__ import annotations

import re
from typing import Literal

Role = Literal["user", "item", "item_id", "time", "rating"]

_WORDS: dict[str, frozenset[str]] = {
    "user": frozenset(
        "user users uid userid userno username customer customers customerid custid"
        " client clientid buyer buyerid member memberid visitor visitorid account"
        " accountid reviewer reviewerid shopper shopperid listener listenerid viewer"
        " viewerid reader readerid subscriber person personid guest usuario utilisateur"
        " kunde kundennummer kundennr nutzer benutzer cliente utente klient 用户 用户id 用户编号"
        " 顾客 客户 会员 买家 会員 ユーザー ユーザーid 사용자 пользователь клиент".split()
    ),
    "session": frozenset("session sessionid sid device deviceid cookie household".split()),
    "item": frozenset(
        "item items itemid iid product products productid prod prodid pid sku skuid asin"
        " parentasin stockcode article articles articleid artid artikel artikelnummer"
        " artikelnr movie movies movieid film films filmid song songs songid track tracks"
        " trackid artist artists artistid album albumid show showid video videos videoid"
        " vid anime animeid news newsid book books bookid isbn game games gameid appid"
        " recipe recipeid post postid tweetid content contentid business businessid"
        " restaurant offer offerid good goods goodsid gid course courseid photoid producto"
        " produit prodotto produkt produto pelicula 商品 商品id 商品编号 物品 物品id 电影 电影id 文章 文章id"
        " 歌曲 视频 新闻 アイテム 商品コード 상품 товар фильм".split()
    ),
    "time": frozenset(
        "time times timestamp ts date datetime when created createdat updatedat"
        " eventtime unixtime unixreviewtime reviewtime ratedat watchedat playedat"
        " invoicedate orderdate zeit zeitpunkt zeitstempel datum fecha hora data heure"
        " horodatage 时间 时间戳 日期 日時 時刻 시간 날짜 время дата".split()
    ),
    "rating": frozenset(
        "rating ratings rate score stars star overall grade bewertung note puntuacion"
        " puntuación calificacion voto avaliacao 评分 打分 得分 星级 評価 評点 평점 оценка рейтинг".split()
    ),
    "choice": frozenset("label like liked likes click clicked isclick isclicked purchased feedback".split()),
    "id": frozenset("id ids code key no nr number nummer uuid guid asin sku isbn stockcode 编号".split()),
    "title": frozenset(
        "title titles name headline titel titulo título titre titolo 标题 名称 商品名 商品名称 片名 书名"
        " 题目 タイトル 名前 제목 название 电影名".split()
    ),
    "maker": frozenset(
        "brand artist artists author authors creator director publisher maker"
        " manufacturer band singer channel studio marke autor autore réalisateur 品牌 作者 歌手"
        " 导演 演员 ブランド 著者".split()
    ),
    "category": frozenset(
        "category categories genre genres tag tags topic topics type types department"
        " departments section sections style styles subject subjects class kategorie"
        " kategorien rubrik gattung categoria categoría categorías género géneros genere"
        " generi catégorie catégories rayon thème 类别 分类 类型 标签 カテゴリ ジャンル"
        " 카테고리 장르 категория категории жанр жанры".split()
    ),
    "year": frozenset("year released releaseyear jahr año ano année anno 年份 年 出版年".split()),
    "interactions_file": frozenset(
        "interactions interaction ratings rating clicks click events event orders order"
        " transactions transaction reviews views purchases purchase sales listens plays"
        " history behaviors behaviours log logs train actions inter likes sessions watched"
        " 行为 交互 评分 订单 点击".split()
    ),
    "items_file": frozenset(
        "items item products product movies movie films film songs song tracks track"
        " artists news articles article videos video books book games catalog catalogue"
        " catalogs metadata meta goods content posts recipes 商品 物品 电影 目录".split()
    ),
}


def split_name(name: str) -> list[str]:
    """Gives a name's words in lower case, and last all of them in one.

    >>> split_name("parentAsin"), split_name("Customer ID"), split_name("date")
    (['parent', 'asin', 'parentasin'], ['customer', 'id', 'customerid'], ['date'])
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    words = [word.lower() for word in re.split(r"[\W_]+", spaced) if word]
    return words if len(words) < 2 else [*words, "".join(words)]


def names(name: str, kind: str) -> bool:
    """True where one of a name's words is a word for that kind of thing.

    >>> names("reviewerID", "user"), names("overall", "rating"), names("rated_by", "rating")
    (True, True, False)
    """
    return not _WORDS[kind].isdisjoint(split_name(name))
