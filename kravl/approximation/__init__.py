"""Matrix approximation: which updates can an adapter express, and which of them does AdamW find?"""
