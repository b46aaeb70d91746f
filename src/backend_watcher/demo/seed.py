"""What the shop has before the first order: sellers, products, wallets. The same at every run."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg import Connection

SEED = 17_081_945

WALLETS = 400
WALLET_RUPIAH = 25_000_000
STOCK_MIN = 6
STOCK_MAX = 40

SELLERS = (
    "Toko Melati",
    "Warung Nusantara",
    "Pasar Rempah",
    "Griya Batik Pekalongan",
    "Kedai Kopi Gayo",
    "Dapur Sambal Roa",
    "Rumah Tenun Sumba",
    "Kebun Teh Malabar",
    "Oleh-Oleh Garut",
    "Anyaman Lombok",
    "Tani Gula Aren",
    "Laut Sidoarjo",
)

# Each with its price in rupiah.
GOODS = (
    ("Kopi Gayo", 85_000),
    ("Kopi Toraja", 92_000),
    ("Teh Melati", 24_000),
    ("Teh Poci", 18_000),
    ("Gula Aren", 32_000),
    ("Gula Semut", 38_000),
    ("Sambal Roa", 45_000),
    ("Sambal Matah", 39_000),
    ("Sambal Terasi", 29_000),
    ("Keripik Singkong Balado", 22_000),
    ("Keripik Tempe", 20_000),
    ("Kerupuk Udang", 35_000),
    ("Emping Melinjo", 48_000),
    ("Rempeyek Kacang", 27_000),
    ("Dodol Garut", 30_000),
    ("Wingko Babat", 34_000),
    ("Bakpia Kacang Hijau", 40_000),
    ("Abon Sapi", 78_000),
    ("Rendang Kaleng", 69_000),
    ("Bumbu Rawon", 15_000),
    ("Bumbu Soto", 14_000),
    ("Kecap Manis", 26_000),
    ("Petis Udang", 31_000),
    ("Madu Sumbawa", 125_000),
    ("Minyak Kelapa", 43_000),
    ("Lada Bangka", 55_000),
    ("Cengkeh Maluku", 60_000),
    ("Kayu Manis Kerinci", 36_000),
    ("Pala Banda", 64_000),
    ("Vanili Alor", 150_000),
    ("Beras Cianjur", 88_000),
    ("Batik Tulis", 650_000),
    ("Batik Cap", 185_000),
    ("Tenun Ikat", 420_000),
    ("Songket", 780_000),
    ("Tas Rotan", 165_000),
    ("Tikar Pandan", 95_000),
    ("Topi Anyaman", 58_000),
    ("Gerabah Kasongan", 75_000),
    ("Sabun Sereh", 21_000),
)
VARIANTS = (("kecil", 70), ("sedang", 100), ("besar", 180))

PRODUCTS = len(GOODS) * len(VARIANTS)


def opening_stock() -> dict[int, int]:
    """Return how many of each product there are at first."""
    draw = random.Random(SEED)
    return {product: draw.randint(STOCK_MIN, STOCK_MAX) for product in range(1, PRODUCTS + 1)}


def fill(connection: Connection[object]) -> None:
    """Write all of it in one transaction."""
    stock = opening_stock()
    variants = [(f"{name} ({size})", price * percent // 100) for name, price in GOODS for size, percent in VARIANTS]
    products = [
        (number, 1 + number % len(SELLERS), name, price, stock[number])
        for number, (name, price) in enumerate(variants, 1)
    ]
    wallets = [(number, f"Dompet {number:04}", WALLET_RUPIAH) for number in range(1, WALLETS + 1)]
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany("INSERT INTO sellers (id, name) VALUES (%s, %s)", list(enumerate(SELLERS, 1)))
        cursor.execute("INSERT INTO seller_revenue (seller_id) SELECT id FROM sellers")
        cursor.executemany(
            "INSERT INTO products (id, seller_id, name, price, stock) VALUES (%s, %s, %s, %s, %s)", products
        )
        cursor.execute("INSERT INTO stock_moves (product_id, version, quantity) SELECT id, 0, stock FROM products")
        cursor.executemany("INSERT INTO wallets (id, label, balance) VALUES (%s, %s, %s)", wallets)
