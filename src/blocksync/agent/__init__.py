"""The far end of a pass: installed there, or sent there."""
