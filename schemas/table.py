"""Declared tables: an Arrow schema with a kind, a version, and a meaning for every column.

Kind and version travel in the schema's metadata, so each Parquet file says what it is. A reader that meets another
kind, another version, or drifted columns raises `SchemaError` with the difference and what to do about it.
"""

from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from schemas.errors import SchemaError

KIND_KEY: Final = b"latentmill.kind"
VERSION_KEY: Final = b"latentmill.version"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its Arrow type, what it means (with units and shape), and whether a row may lack it."""

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class TableSchema:
    """A kind of table at a version.

    `version` is raised whenever a column is added, removed, renamed, retyped or changes meaning.
    """

    kind: str
    version: int
    columns: tuple[Column, ...]

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema, with kind and version in its metadata and each meaning in its field's."""
        fields = [pa.field(c.name, c.type, c.nullable, metadata={"meaning": c.meaning}) for c in self.columns]
        return pa.schema(fields, metadata={KIND_KEY: self.kind.encode(), VERSION_KEY: str(self.version).encode()})

    def check(self, found: pa.Schema, where: str) -> None:
        """Raise `SchemaError` unless `found` (the schema of the file named by `where`) is this one."""
        self._check_identity(found, where)
        differences = self.differences(found)
        if differences:
            raise SchemaError(
                f"{where}: columns differ from {self.kind} v{self.version}: {'; '.join(differences)}. "
                f"Write the file again with the stage that made it, or convert these columns."
            )

    def _check_identity(self, found: pa.Schema, where: str) -> None:
        metadata = found.metadata or {}
        kind, version = metadata.get(KIND_KEY), metadata.get(VERSION_KEY)
        if kind is None or version is None:
            raise SchemaError(
                f"{where}: no latentmill kind or version in the file, expected {self.kind} v{self.version}. "
                f"Is this a file of another program?"
            )
        name, number = kind.decode(errors="replace"), version.decode(errors="replace")
        if name != self.kind:
            raise SchemaError(f"{where}: holds {name}, expected {self.kind}. Point at a {self.kind} dataset.")
        if number != str(self.version):
            older = number.isdecimal() and int(number) < self.version
            advice = f"run the {self.kind} stage again to renew it" if older else "update latentmill"
            raise SchemaError(f"{where}: {self.kind} v{number}, this latentmill reads v{self.version}; {advice}.")

    def differences(self, found: pa.Schema) -> list[str]:
        """What separates `found` from the declared columns, one phrase each; empty if nothing does.

        Order of columns is part of the contract only in files that we write, so it is not compared.
        """
        by_name = {field.name: field for field in found}
        declared = {column.name for column in self.columns}
        by_lower = {name.lower(): name for name in by_name if name not in declared}
        out = [
            f"{name}: {found.names.count(name)} columns of this name" for name in by_name if found.names.count(name) > 1
        ]
        explained: set[str] = set()
        for column in self.columns:
            field = by_name.get(column.name)
            if field is None:
                other = by_lower.get(column.name.lower())
                out.append(f"{column.name}: {f'spelt {other}' if other else 'missing'}")
                explained.add(other or "")
            elif field.type != column.type:
                out.append(f"{column.name}: {field.type}, expected {column.type}")
        out += [f"{name}: not declared" for name in by_name if name not in declared | explained]
        return out
