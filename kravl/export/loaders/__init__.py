"""What an export is loaded with by others: copied into it as load.py, without kravl."""
