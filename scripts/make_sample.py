"""Cleans the UCI "Online Retail II" order lines into the sample shipped with the package.

    python scripts/make_sample.py orders_online_retail_II.parquet stream/jobs/files/data

Reads the published table (columns `event_id, order_id, ts, sku, quantity, unit_price,
customer_id, country, description`) and writes `orders.parquet`, `catalog.parquet` and
`cleaning.json`, a report that is also printed. The same input gives the same bytes. Clicks are
synthetic and come from `stream.jobs.files.synthetic_clicks`, not from here.

The rules, in order; a dropped line is counted under the first rule that applies:

1. SKUs are trimmed and upper-cased: 173 of them differ from another only in letter case.
2. Duplicates (equal except for the generated `event_id` and the description) are kept once.
3. A SKU that is not five digits with optional letters is not a product (postage, vouchers, manual
   entries, bank charges, bad debts, tests, …).
4. A price of 0 or less is not a sale (write-offs, samples, corrections, bad debts).
5. A quantity of 0 has no effect.
6. More than 2,000 units on a line, sold or returned, is a typing error or its cancellation
   (80,995 units, …).

Cancellations are kept: lines with a negative quantity are returns. The country is dropped, so that
a series is one SKU. Times are the shop's local time, stored as UTC.
"""

import json
import sys
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

MAX_BYTES = 5_000_000
MAX_LINE_UNITS = 2_000
PRODUCT_SKU = r"^\d{5}[A-Z]*$"
ORDER_COLUMNS = ["event_id", "order_id", "ts", "sku", "quantity", "unit_price", "customer_id"]

#: First match wins; words of the description, upper case.
CATEGORIES = (
    ("christmas", r"CHRISTMAS|XMAS|ADVENT|REINDEER|SANTA\b|SNOW|NATIVITY|BAUBLE"),
    ("easter", r"EASTER|BUNNY|RABBIT|\bCHICKS?\b|\bHENS?\b|\bEGGS\b"),
    (
        "jewellery",
        r"NECKLACE|BRACELET|EARRING|\bRINGS?\b|BROOCH|JEWEL|CHARM\b|BEAD|\bHAIR|DIAMANTE|PENDANT"
        r"|BANGLE|LOCKET|ANKLET",
    ),
    ("bags", r"\bBAGS?\b|PURSE|SHOPPER|RUCKSACK|BACKPACK|TOTE\b|WALLET|SUITCASE|HANDBAG|LUGGAGE"),
    ("lighting", r"LIGHTS?\b|LAMP|LANTERN|CHANDELIER|CANDLE|TLIGHT|INCENSE"),
    ("party", r"PARTY|BUNTING|GARLAND|WEDDING|CONFETTI|STREAMER|BALLOON|NAPKIN|PIGGY|STRAWS"),
    (
        "stationery",
        r"CARD|PAPER|WRAP|NOTEBOOK|\bPENS?\b|PENCIL|STICKER|JOURNAL|RIBBON|\bTAPE\b|ENVELOPE"
        r"|LETTER|STAMP|ERASER|RULER|BOOK\b|CHALK|CALENDAR|TISSUE|DOILY|DOILIES|SKETCHBOOK",
    ),
    (
        "kitchen",
        r"CAKE|\bMUG|\bTEA\b|TEAPOT|CUPS?\b|PLATE|BOWL|CUTLERY|KITCHEN|APRON|\bJARS?\b|BOTTLE|LUNCH"
        r"|TRAY|PANTRY|COFFEE|BAKING|SPOON|KNIFE|FORK|JUG\b|DISH|COASTER|TOWEL|OVEN|BREAD|RECIPE"
        r"|SALT|SUGAR|MILK|SAUCER|TUMBLER|GOBLET|PLACEMAT|JELLY|POPCORN|SNACK|BISCUIT|CHOPPING"
        r"|WHISK|FUNNEL|COOK|TIFFIN|SPICE",
    ),
    (
        "toys",
        r"\bTOYS?\b|GAME|DOLL|PUZZLE|JIGSAW|\bPLAY|CHILD|KIDS|BABY|SOLDIER|SKITTLES|SPACEBOY|FELTCRAFT"
        r"|TEDDY|MAGIC|SKIPPING|DINOSAUR|CRAFT|ROBOT|BINGO|DOMINO|\bCARS?\b",
    ),
    (
        "garden",
        r"GARDEN|PLANT|\bPOTS?\b|FLOWER|WATERING|BIRD|HERB|SEED|PICNIC|UMBRELLA|PARASOL|WINDMILL"
        r"|TROWEL|WILLOW|BOUQUET|DAISY|TOADSTOOL|GREENHOUSE|DECKCHAIR|FEEDER",
    ),
    (
        "storage",
        r"\bBOX|BASKET|DRAWER|CABINET|STORAGE|\bTINS?\b|HOOK|HANGER|CASES|CHEST|SHELF|RACK|CRATE"
        r"|TRINKET|HOLDER|STAND\b|TIDY|KNOB|CUPBOARD|TABLE|CHAIR|STOOL",
    ),
    (
        "textiles",
        r"CUSHION|BLANKET|THROW|QUILT|RUG\b|DOORMAT|CURTAIN|SCARF|SOCK|SLIPPER|HOT WATER|WARMER"
        r"|KNITTED|FABRIC|GLOVE|\bHAT\b|PILLOW|PADS?\b|FLANNEL|MAT\b|SHAWL|SARONG",
    ),
)
OTHER_CATEGORY = "decoration"


def clean(raw: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the kept lines (with their description) and the number dropped by each rule."""
    lines = raw.with_columns(sku=pl.col("sku").str.strip_chars().str.to_uppercase())
    report = {
        "lines_read": lines.height,
        "skus_read": raw["sku"].n_unique(),
        "skus_merged_by_letter_case": raw["sku"].n_unique() - lines["sku"].n_unique(),
    }
    same = [name for name in lines.columns if name not in ("event_id", "description")]
    rules = {
        "duplicate": pl.struct(same).is_first_distinct(),
        "no_product": pl.col("sku").str.contains(PRODUCT_SKU),
        "price_not_positive": pl.col("unit_price") > 0,
        "quantity_zero": pl.col("quantity") != 0,
        f"more_than_{MAX_LINE_UNITS}_units": pl.col("quantity").abs() <= MAX_LINE_UNITS,
    }
    for name, keeps in rules.items():
        kept = lines.filter(keeps)
        report[f"dropped_{name}"] = lines.height - kept.height
        lines = kept
    lines = lines.sort("ts", maintain_order=True)
    report |= {
        "lines_kept": lines.height,
        "skus_kept": lines["sku"].n_unique(),
        "return_lines_kept": lines.filter(pl.col("quantity") < 0).height,
        "lines_without_customer": lines["customer_id"].null_count(),
        "first_ts": int(lines["ts"][0]),
        "last_ts": int(lines["ts"][-1]),
    }
    return lines, report


def build_catalog(lines: pl.DataFrame) -> pl.DataFrame:
    """One row per SKU: category from the most common description, median price, first sale."""
    described = (
        lines.filter(pl.col("description").is_not_null())
        .group_by("sku", "description")
        .len()
        .sort("sku", "len", "description", descending=[False, True, False])
        .unique("sku", keep="first", maintain_order=True)
    )
    words = pl.col("description").str.to_uppercase()
    category = pl.lit(OTHER_CATEGORY)
    for name, pattern in reversed(CATEGORIES):
        category = pl.when(words.str.contains(pattern)).then(pl.lit(name)).otherwise(category)
    prices = lines.group_by("sku").agg(
        price=pl.col("unit_price").median().round(4), launched_at=pl.col("ts").min()
    )
    return (
        prices.join(described.select("sku", category.alias("category")), on="sku", how="left")
        .with_columns(pl.col("category").fill_null(OTHER_CATEGORY))
        .select("sku", "category", "price", "launched_at")
        .sort("sku")
    )


def write(frame: pl.DataFrame, path: Path, *, delta: dict[str, str]) -> None:
    """Write one row group with the strongest zstd level; sorted columns are stored as deltas."""
    table = frame.to_arrow()
    schema = pa.schema(
        [
            (f.name, pa.string() if pa.types.is_large_string(f.type) else f.type)
            for f in table.schema
        ]
    )
    pq.write_table(
        table.cast(schema),
        path,
        compression="zstd",
        compression_level=19,
        row_group_size=frame.height,
        use_dictionary=[name for name in frame.columns if name not in delta],
        column_encoding=delta,
    )


def main(source: str, target: str) -> int:
    """Clean `source` into the folder `target`; return 1 if the result is too large to ship."""
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    lines, report = clean(pl.read_parquet(source))
    catalog = build_catalog(lines)
    write(
        lines.select(ORDER_COLUMNS),
        folder / "orders.parquet",
        delta={
            "event_id": "DELTA_BYTE_ARRAY",
            "order_id": "DELTA_BYTE_ARRAY",
            "ts": "DELTA_BINARY_PACKED",
        },
    )
    write(catalog, folder / "catalog.parquet", delta={"sku": "DELTA_BYTE_ARRAY"})
    sizes = {p.name: p.stat().st_size for p in sorted(folder.glob("*.parquet"))}
    counts = catalog.group_by("category").len().sort("len", descending=True).rows()
    text = json.dumps(report | {"categories": dict(counts), "bytes": sizes}, indent=2)
    (folder / "cleaning.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    if sum(sizes.values()) > MAX_BYTES:
        size = sum(sizes.values())
        print(f"the sample has {size:,} bytes, the limit is {MAX_BYTES:,}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} INPUT.parquet OUTPUT_DIR")
    sys.exit(main(sys.argv[1], sys.argv[2]))
