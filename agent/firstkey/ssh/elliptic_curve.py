"""The elliptic curves of ECDSA keys, to tell whether a point is on its curve.

OpenSSH asks OpenSSL and so refuses a key whose point is not on its curve; here a few lines of
arithmetic answer the same. Nothing in it is secret, so nothing in it needs to take constant time.
"""

from __future__ import annotations

from firstkey.named_tuple import NamedTuple


class Curve(NamedTuple):
    """A curve y^2 = x^3 - 3x + b over a prime field, and the order of its base point (FIPS 186-4, D.1.2)."""

    prime: int
    b: int
    order: int

    def has(self, point: bytes) -> bool:
        """Whether OpenSSH takes the encoded point: uncompressed (SEC 1, 2.3.3), on the curve, and no freak.

        Freaks (sshkey.c: sshkey_ec_validate_public) have a coordinate of no more than half the
        order's bits, or one that reaches the order less one. Honest keys never do.
        """
        size = (self.prime.bit_length() + 7) // 8
        if len(point) != 1 + 2 * size or point[0] != 4:
            return False
        x, y = int.from_bytes(point[1 : 1 + size], "big"), int.from_bytes(point[1 + size :], "big")
        small = min(x, y).bit_length() <= self.order.bit_length() // 2
        large = max(x, y) >= min(self.order - 1, self.prime)
        return not small and not large and (x**3 - 3 * x + self.b - y**2) % self.prime == 0


CURVES = {
    b"nistp256": Curve(
        prime=2**256 - 2**224 + 2**192 + 2**96 - 1,
        b=0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
        order=2**256 - 2**224 + 2**192 - 0x4319055258E8617B0C46353D039CDAAF,
    ),
    b"nistp384": Curve(
        prime=2**384 - 2**128 - 2**96 + 2**32 - 1,
        b=0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
        order=2**384 - 0x389CB27E0BC8D220A7E5F24DB74F58851313E695333AD68D,
    ),
    b"nistp521": Curve(
        prime=2**521 - 1,
        b=(0x51953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF109E1 << 256)
        + 0x56193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00,
        order=2**521 - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
    ),
}
"""By the name that a key's data has for it (RFC 5656, 10.1)."""
